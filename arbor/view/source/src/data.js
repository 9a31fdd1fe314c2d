// Where the questions come from: the data blocks of this file, or the server that follows a file.

const packed = (id) => document.getElementById(id);

async function unpack(base64) {
  const bytes = Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

export class Store {
  /** files: [{name, entries}]; pairs: [[index in the first, index in the second]]; test: the paired test, or null. */
  constructor() {
    this.live = Boolean(document.querySelector('meta[name="arbor-live"]'));
    this.kept = new Map();
    this.version = "";
  }

  async open() {
    if (this.live) await this.refresh();
    else this.#take(await unpack(packed("index").textContent));
  }

  #take(index) {
    Object.assign(this, { files: index.files, failures: index.failures, pairs: index.pairs, test: index.test });
  }

  /** Asks the server what is new; true where something is. */
  async refresh() {
    const response = await fetch(`index?have=${encodeURIComponent(this.version)}`);
    if (response.status === 204) return false;
    if (!response.ok) throw new Error((await response.text()) || `the server answers ${response.status}`);
    const index = await response.json();
    if (index.generation !== this.generation) this.kept.clear();
    this.version = index.version;
    this.generation = index.generation;
    this.#take(index);
    return true;
  }

  /** {record, prompt, written, verdicts} of a question; the last few are kept. */
  async question(file, index) {
    const key = `${file}-${index}`;
    if (!this.kept.has(key)) {
      const one = this.live ? await (await fetch(`question/${file}/${index}`)).json() : await unpack(packed(`q${key}`).textContent);
      if (this.kept.size > 20) this.kept.delete(this.kept.keys().next().value);
      this.kept.set(key, one);
    }
    return this.kept.get(key);
  }
}
