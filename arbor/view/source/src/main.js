// The page: list, tree and detail, and what joins them.

import { Store } from "./data.js";
import { Detail, TABS } from "./detail.js";
import { byId, count, h, number, oneLine, put } from "./dom.js";
import { QuestionList, SIGNS } from "./list.js";
import { MARKS, readTree, replay } from "./model.js";
import { MEASURES, TreeView, colour } from "./tree.js";

const NAMES = ["A", "B"];
const FRAME_MS = 350;

class Page {
  constructor(store) {
    this.store = store;
    this.two = store.files.length > 1;
    this.measure = "q";
    const wanted = new URLSearchParams(location.hash.slice(1));
    this.light = matchMedia("(prefers-color-scheme: light)").matches;
    this.list = new QuestionList((row) => this.open(row));
    this.detail = new Detail((node) => this.view.select(node), () => this.theme);
    this.panes = store.files.map((_, at) => this.#pane(at));
    this.view = this.panes[0].view;
    this.head = h("header", { className: "top" });
    this.toolbar = this.#toolbar();
    document.body.append(this.head, h("main", { className: this.two ? "two" : "" }, this.list.element,
      h("section", { className: "middle", "aria-label": "tree" }, this.toolbar, this.panes.map((pane) => pane.element), legend()), this.detail.element), this.help = help());
    this.#theme(this.light ? "light" : "dark");
    addEventListener("keydown", (event) => this.#key(event));
    addEventListener("hashchange", () => this.#follow(new URLSearchParams(location.hash.slice(1))));
    this.take();
    this.#follow(wanted);
    if (store.live) setInterval(() => this.refresh(), 2000);
  }

  #follow(wanted) {
    if (wanted.toString() === this.written) return;
    const row = this.list.all.find(({ index }) => index[0] === Number(wanted.get("q") ?? NaN));
    this.tagWanted = wanted.get("node");
    if (TABS.includes(wanted.get("tab"))) this.detail.tab = wanted.get("tab");
    if (row) this.list.choose(row);
    else this.list.move(0);
  }

  /** Takes what the store holds into the list. */
  take() {
    const [first, second] = this.store.files;
    const rows = this.two ? this.store.pairs.map(([i, j]) => ({ first: first.entries[i], second: second.entries[j], index: [i, j] }))
      : first.entries.map((entry, i) => ({ first: entry, second: null, index: [i, null] }));
    this.list.take(rows, this.two);
    put(this.head, h("h1", null, "Arbor"), this.store.files.map((file, at) => summary(file, this.two ? NAMES[at] : "")),
      this.two ? h("span", { className: "test", title: "paired: McNemar's exact test" }, tested(this.store.test)) : null,
      h("span", { className: "space" }), this.store.live ? h("span", { className: "live", title: "follows the file while it is written" }, "● following") : null,
      h("button", { onclick: () => this.#theme(this.theme === "dark" ? "light" : "dark"), title: "key t" }, "light / dark"),
      h("button", { onclick: () => this.help.showModal(), title: "key ?" }, "keys ?"));
    document.title = `Arbor: ${this.store.files.map((file) => file.name).join(" and ")}`;
  }

  async refresh() {
    try {
      if (await this.store.refresh()) {
        this.take();
        if (!this.row) this.list.move(0);
      }
    } catch (error) {
      this.head.querySelector(".live")?.replaceChildren("○ not following: ", error.message);
    }
  }

  #pane(at) {
    const view = new TreeView((node) => this.choose(at, node));
    const title = h("div", { className: "pane-title" });
    const element = h("div", { className: "pane", onfocusin: () => (this.view = view) }, this.two ? title : null, view.box);
    return { view, title, element, run: 0 };
  }

  async open(row) {
    this.row = row;
    this.#stop();
    const opened = (this.opened = Symbol());
    try {
      const found = await Promise.all(this.panes.map((_, at) => this.store.question(at, row.index[at])));
      if (opened !== this.opened) return; // another question was chosen meanwhile
      this.panes.forEach((pane, at) => this.#fill(pane, at, found[at]));
    } catch (error) {
      this.detail.body.replaceChildren(h("p", { className: "none" }, `The question cannot be read: ${error.message}`));
      return;
    }
    this.#runs();
    this.#tell();
    this.view = this.panes[0].view;
    const wanted = this.tagWanted && this.panes[0].tree.nodes.get(this.tagWanted);
    this.tagWanted = null;
    if (wanted) this.view.select(wanted);
    else this.choose(0, this.view.selected);
  }

  #fill(pane, at, one, run = one.picked?.run ?? 0) {
    const trees = [one.record.react, ...(one.record.runs || [])];
    pane.one = one;
    pane.run = Math.min(run, trees.length - 1);
    pane.tree = readTree(trees[pane.run], one.verdicts, this.store.failures, one.picked && one.picked.run === pane.run ? one.picked.tag : null);
    pane.replay = replay(pane.tree, one.record.meta?.config || {});
    pane.view.show(pane.tree, { measure: this.#measured(pane), theme: this.theme, replay: null });
    const entry = [this.row.first, this.row.second][at];
    pane.title.replaceChildren(h("b", null, NAMES[at]), h("span", { className: `sign ${entry.verdict}` }, SIGNS[entry.verdict]),
      ` ${entry.prediction ? `= ${oneLine(entry.prediction, 30)}` : entry.reason || "no answer"} · ${entry.method} · ${count(entry.nodes)} nodes${entry.tokens === null ? "" : ` · ${count(entry.tokens)} tokens`}`);
  }

  /** Q where the tree has any, else the values. */
  #measured = (pane) => (this.measure === "q" && pane.tree.root.visits === null ? "value" : this.measure);

  choose(at, node) {
    const pane = this.panes[at];
    this.view = pane.view;
    this.detail.run = pane.run;
    this.detail.show(pane.one, pane.tree, node);
    this.panes.forEach((one) => one.element.classList.toggle("active", one === pane));
    this.#remember(node);
  }

  #remember(node) {
    const hash = new URLSearchParams({ q: this.row.index[0], node: node.tag });
    this.written = hash.toString();
    try {
      history.replaceState(null, "", `#${hash}`);
    } catch {
      // a browser that forbids it for local files
    }
  }

  #toolbar() {
    this.runs = h("select", { "aria-label": "run", onchange: () => this.#changeRun(Number(this.runs.value)) });
    this.colouring = h("select", { "aria-label": "colour by", onchange: () => this.#recolour() }, h("option", { value: "q" }, "colour: Q"), h("option", { value: "value" }, "colour: value"));
    this.slider = h("input", { type: "range", min: 0, value: 0, "aria-label": "simulation", oninput: () => this.#seek(Number(this.slider.value)) });
    this.play = h("button", { title: "space", onclick: () => this.#play() }, "▶ replay");
    this.told = h("span", { className: "told", role: "status" });
    const button = (text, title, onclick) => h("button", { title, onclick, "aria-label": title }, text);
    return h("div", { className: "toolbar", role: "toolbar" }, this.runs, this.colouring, button("−", "smaller  ( − )", () => this.#zoom(1 / 1.25)),
      button("+", "larger  ( + )", () => this.#zoom(1.25)), button("fit", "the whole tree  ( 0 )", () => this.panes.forEach(({ view }) => view.fit())),
      button("✓", "next right answer  ( n )", () => this.#nextRight()), this.play, this.slider, this.told);
  }

  #runs() {
    const { one, run } = this.panes[0];
    const amount = 1 + (one.record.runs || []).length;
    this.runs.hidden = amount < 2 || this.two;
    this.runs.replaceChildren(...Array.from({ length: amount }, (_, at) => h("option", { value: at }, `run ${at + 1} of ${amount}`)));
    this.runs.value = run;
  }

  #changeRun(run) {
    this.#stop();
    this.#fill(this.panes[0], 0, this.panes[0].one, run);
    this.#tell();
    this.choose(0, this.view.selected);
  }

  #recolour() {
    this.measure = this.colouring.value;
    this.#draw();
  }

  #draw(last = null) {
    for (const pane of this.panes) {
      if (!pane.tree) continue;
      const at = last === null ? null : Math.min(last, pane.replay.steps);
      pane.view.draw({ measure: this.#measured(pane), theme: this.theme, replay: at === null || at >= pane.replay.steps ? null : { last: at, found: pane.replay.exact ? pane.replay.at(at) : null } });
    }
  }

  #tell() {
    const steps = Math.max(...this.panes.map((pane) => pane.replay.steps));
    this.slider.max = steps;
    this.slider.value = steps;
    this.slider.disabled = this.play.disabled = !steps;
    this.#say(steps);
  }

  #say(at) {
    const { replay: found, tree } = this.panes.reduce((most, pane) => (pane.replay.steps > most.replay.steps ? pane : most));
    const steps = Number(this.slider.max);
    const unit = found.recorded ? "simulation" : "depth";
    const why = found.recorded || tree.root.visits === null ? "" : " (the file does not record the order of simulations)";
    const note = found.recorded && !found.exact && at < steps ? ", final statistics" : "";
    this.told.textContent = `${unit} ${at} of ${steps}${note}`;
    this.told.title = `What the tree held after ${unit} ${at}${why}.${note ? " The backups of this search cannot be repeated from the file, so Q and visits are those of its end." : ""}`;
  }

  #seek(at) {
    const bounded = Math.max(0, Math.min(Number(this.slider.max), at));
    this.slider.value = bounded;
    this.#draw(bounded);
    this.#say(bounded);
    for (const { view, tree, replay: { steps } } of this.panes) {
      const made = bounded < steps || this.timer ? tree.order.find((node) => node.appears === Math.min(bounded, steps)) : null;
      if (made?.parent) view.reveal(made);
    }
  }

  #play() {
    if (this.timer) return this.#stop();
    if (Number(this.slider.value) >= Number(this.slider.max)) this.#seek(0);
    this.play.textContent = "❚❚ pause";
    this.timer = setInterval(() => {
      this.#seek(Number(this.slider.value) + 1);
      if (Number(this.slider.value) >= Number(this.slider.max)) this.#stop();
    }, FRAME_MS);
  }

  #stop() {
    clearInterval(this.timer);
    this.timer = null;
    this.play.textContent = "▶ replay";
  }

  #zoom(by) {
    for (const { view } of this.panes) view.scale(view.zoom * by);
  }

  #nextRight() {
    const right = this.view.tree.order.filter((node) => node.verdict === true);
    if (right.length) this.view.select(right[(right.indexOf(this.view.selected) + 1) % right.length]);
  }

  #theme(theme) {
    this.theme = theme;
    document.documentElement.dataset.theme = theme;
    for (const at of [0, 1, 2, 3, 4]) document.documentElement.style.setProperty(`--scale-${at}`, colour(at / 2 - 1, theme));
    if (this.row) {
      this.#draw(this.slider.value === this.slider.max ? null : Number(this.slider.value));
      this.detail.draw();
    }
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || this.help.open) return;
    if (event.target.matches?.("input, select, textarea")) {
      if (event.key === "Escape") event.target.blur();
      if (event.key !== "Escape") return;
    }
    const pressed = event.target.matches?.("button, summary") && [" ", "Enter"].includes(event.key);
    const tab = TABS[Number(event.key) - 1];
    const act = pressed ? null : {
      "/": () => this.list.search.focus(), j: () => this.list.move(1), k: () => this.list.move(-1),
      l: () => this.list.rows.focus(), g: () => this.panes[0].view.canvas.focus(), b: () => this.panes.at(-1).view.canvas.focus(),
      p: () => this.view.tree.picked && this.view.select(this.view.tree.picked), n: () => this.#nextRight(),
      f: () => this.view.fold(this.view.selected), "+": () => this.#zoom(1.25), "-": () => this.#zoom(0.8), 0: () => this.panes.forEach(({ view }) => view.fit()),
      c: () => { this.colouring.value = this.measure === "q" ? "value" : "q"; this.#recolour(); },
      " ": () => this.#play(), "[": () => this.#seek(Number(this.slider.value) - 1), "]": () => this.#seek(Number(this.slider.value) + 1),
      t: () => this.#theme(this.theme === "dark" ? "light" : "dark"), "?": () => this.help.showModal(),
    }[event.key] || (tab && (() => this.detail.turn(tab)));
    if (!act) return;
    event.preventDefault();
    act();
  }
}

function summary(file, name) {
  const { entries, score } = file;
  const share = score && `${number(score.percent, 1)} %`;
  const whole = score ? `${share} right (95 %: ${number(score.low, 1)}–${number(score.high, 1)}) of ${count(score.n)}` : `${count(entries.length)} questions, not graded`;
  return h("span", { className: "file", title: `${file.name}: ${whole}` }, name ? h("b", null, `${name} `) : null, h("span", { className: "file-name" }, oneLine(file.name, name ? 24 : 40)), " ",
    h("span", { className: "score" }, score && name ? `${share} (${number(score.low, 0)}–${number(score.high, 0)})` : whole));
}

function tested(test) {
  if (!test) return "not graded on both sides";
  return `of ${count(test.n)}: A alone ${test.only_first}, B alone ${test.only_second}, p = ${test.p < 0.001 ? test.p.toExponential(1) : number(test.p, 3)}`;
}

const legend = () => h("footer", { className: "legend", "aria-label": "legend" }, h("span", { className: "scale" }), "−1 … +1",
  ...["right", "wrong", "undecided", "failed"].map((what) => h("span", null, h("span", { className: `sign ${what}` }, MARKS[what]), ` ${what}`)),
  h("span", null, h("span", { className: "bar picked" }), " picked path"), h("span", null, h("span", { className: "bar pruned" }), " no answer below"),
  h("span", null, "size: visits; number on an edge: prior"));

const KEYS = [
  ["j  k", "next, previous question"], ["/", "search"], ["l", "to the list (↑ ↓ Page Home End)"], ["g  b", "to the tree (of A, of B)"],
  ["← → ↑ ↓", "in the tree: parent, child, neighbours"], ["Enter  f", "fold and unfold below a node"], ["p", "the picked answer"], ["n", "next right answer"],
  ["1 … 5", "step, path, prompt, training, record"], ["space", "replay, pause"], ["[  ]", "one simulation back, on"], ["c", "colour by Q or by value"],
  ["+ − 0", "larger, smaller, the whole tree"], ["t", "light or dark"], ["Esc", "leave a field or this list"],
];

function help() {
  const dialog = h("dialog", { className: "help", "aria-label": "keys" }, h("h2", null, "Keys"), h("table", null, h("tbody", null, KEYS.map(([keys, what]) => h("tr", null, h("td", null, h("kbd", null, keys)), h("td", null, what))))),
    h("form", { method: "dialog" }, h("button", null, "close")));
  dialog.addEventListener("submit", (event) => { event.preventDefault(); dialog.close(); });
  return dialog;
}

async function start() {
  try {
    if (!("DecompressionStream" in window)) throw new Error("this browser cannot unpack the data; expected Chrome 80, Firefox 113, Safari 16.4 or newer");
    const store = new Store();
    await store.open();
    new Page(store);
  } catch (error) {
    document.body.append(h("p", { className: "none fatal", id: "fatal" }, error.message));
    throw error;
  }
}

if (byId("index") || document.querySelector('meta[name="arbor-live"]')) start();
