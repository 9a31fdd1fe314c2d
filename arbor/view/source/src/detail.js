// What is known of the chosen node: the step, its path, the exact prompt, the training target, the record.

import { count, h, number, oneLine, put } from "./dom.js";
import { MARKS, kind, path, target } from "./model.js";
import { colour } from "./tree.js";
import { gist, longText, prose, step } from "./text.js";

export const TABS = ["step", "path", "prompt", "training", "record"];
const PAIR_MARGIN = 0.5;

const fact = (name, value, title) => h("div", { title }, h("dt", null, name), h("dd", null, value));

export class Detail {
  constructor(onSelect, theme) {
    this.onSelect = onSelect;
    this.theme = theme;
    this.tab = "step";
    this.tabs = h("div", { className: "tabs", role: "tablist" }, TABS.map((name, at) => h("button", {
      role: "tab", id: `tab-${name}`, "aria-controls": "detail-body", title: `key ${at + 1}`, onclick: () => this.turn(name),
    }, name)));
    this.body = h("div", { id: "detail-body", className: "body", role: "tabpanel", tabIndex: 0 });
    this.element = h("section", { className: "detail", "aria-label": "chosen step" }, this.tabs, this.body);
  }

  turn(name) {
    this.tab = name;
    this.draw();
  }

  show(one, tree, node) {
    Object.assign(this, { one, tree, node });
    this.draw();
  }

  draw() {
    for (const tab of this.tabs.children) tab.setAttribute("aria-selected", String(tab.id === `tab-${this.tab}`));
    this.body.setAttribute("aria-labelledby", `tab-${this.tab}`);
    if (!this.node) return;
    const { node } = this;
    const what = kind(node);
    const head = h("header", null, h("span", { className: `sign ${what}` }, MARKS[what] || "•"), h("b", null, node.parent ? `step ${node.tag}` : "question"),
      h("span", { className: "what" }, [what === "step" || what === "question" ? null : what, node.reason, node.onPath && node.parent ? "picked path" : null,
        node.pruned && !node.failed ? "no answer below" : null].filter(Boolean).join(" · ")));
    put(this.body, head, this[`_${this.tab}`](node));
    this.body.scrollTop = 0;
  }

  _step(node) {
    const { saved } = node;
    const question = this.one.record.question;
    return [
      this.#numbers(node),
      node.answered ? h("p", { className: "answer" }, "answer ", h("b", null, prose(node.answer.includes("\\") && !node.answer.includes("$") ? `$${node.answer}$` : node.answer))) : null,
      node.parent ? step(node.text) : [h("div", { className: "prose", dir: "auto" }, prose(String(question))), this.#gold()],
      node.parent && node.failed && !node.text ? h("p", null, "The step has no text.") : null,
      node.children.length ? [h("h3", null, "next steps"), this.#children(node)] : null,
      saved.text ? h("details", null, h("summary", null, "source of the step"), longText(saved.text)) : null,
    ];
  }

  #gold() {
    const { answer, prediction } = this.one.record;
    return h("dl", { className: "numbers" }, answer !== undefined && answer !== null ? fact("known answer", oneLine([answer].flat().join(" or "), 60)) : null,
      fact("prediction", prediction ? oneLine(prediction.final_answer, 60) : this.one.picked ? oneLine(this.one.picked.answer, 60) : "none"),
      prediction?.candidates ? fact("votes", `${prediction.votes} of ${prediction.candidates}`) : null);
  }

  #numbers(node) {
    const { saved } = node;
    const rows = [
      ["Q", node.q === null ? null : number(node.q, 3), "mean of the values backed up through the node"],
      ["value", node.value === null ? null : number(node.value, 3), "estimate of the value head"],
      ["visits", node.visits === null ? null : count(node.visits), "values backed up through the node"],
      ["prior", node.parent && node.prior !== null ? number(node.prior, 3) : null, "exp(log-probability / tokens)"],
      ["reward", node.reward === null ? null : number(node.reward, 1), "known without the value head"],
      ["log p", saved.logprob === undefined ? null : number(saved.logprob, 2), "log-probability of the sampled tokens"],
      ["tokens", saved.token_ids ? count(saved.token_ids.length) : null, "that the step adds to the prompt"],
      ["ended by", saved.finish || null, "stop string, end of sequence or length"],
      ["copies", saved.duplicates || null, "further samples with the same text"],
      ["made in", saved.born ? `simulation ${count(saved.born)}` : null, "the simulation that made the node"],
      ["depth", node.parent ? node.depth : null, "steps from the question"],
    ];
    return h("dl", { className: "numbers" }, rows.filter(([, value]) => value !== null).map(([name, value, title]) => fact(name, value, title)));
  }

  #children(node) {
    const cells = (child) => [
      h("td", null, h("span", { className: `sign ${kind(child)}` }, MARKS[kind(child)] || "•")),
      h("td", { className: "words" }, child.answered ? `= ${oneLine(child.answer, 40)}` : oneLine(gist(child.text), 60)),
      h("td", null, number(child.q ?? child.value)), h("td", null, child.visits === null ? "–" : count(child.visits)), h("td", null, number(child.prior)),
    ];
    return h("table", null, h("thead", null, h("tr", null, ["", "step", "Q", "N", "prior"].map((name) => h("th", null, name)))),
      h("tbody", null, node.children.map((child) => h("tr", { onclick: () => this.onSelect(child), className: child.onPath ? "picked" : "" }, cells(child)))));
  }

  _path(node) {
    return path(node).slice(1).map((one, at) => {
      const estimate = one.q ?? one.value;
      const badge = h("button", { className: "badge", title: `go to ${one.tag}`, onclick: () => this.onSelect(one) }, `${at + 1}`);
      badge.style.borderColor = colour(estimate, this.theme()) || "";
      return h("article", { className: "path-step" }, h("div", { className: "side" }, badge, h("span", null, number(estimate))), h("div", null, step(one.text),
        one.answered ? h("p", { className: "answer" }, "answer ", h("b", null, oneLine(one.answer, 200))) : one.reason ? h("p", { className: "reason" }, one.reason) : null));
    }).concat(node.parent ? [] : [h("p", null, "The path of the question itself is empty: choose a step.")]);
  }

  _prompt(node) {
    const { prompt, delimiter, markup } = this.one;
    const steps = path(node).slice(1);
    const ids = path(node).flatMap((one) => one.saved.token_ids || []);
    const text = prompt === null ? null : prompt + steps.map((one) => one.text + delimiter).join("");
    return [
      h("p", { className: "note" }, text === null ? `The text of the prompt cannot be rebuilt: ${markup}. The steps follow.`
        : `What the model is given to continue from here${markup && ` (${markup})`}.`),
      h("button", { onclick: (event) => copy(event.currentTarget, text ?? steps.map((one) => one.text).join("\n")) }, "copy"),
      longText(text ?? steps.map((one) => one.text).join("\n")),
      ids.length ? h("details", null, h("summary", null, `${count(ids.length)} token ids`), longText(ids.join(" "))) : h("p", { className: "note" }, "The file holds no token ids."),
    ];
  }

  _training(node) {
    const steps = path(node).slice(1);
    const pairs = (node.parent?.children || []).filter((one) => one !== node && one.visits && node.visits && Math.abs(one.q - node.q) >= PAIR_MARGIN && one.text !== node.text);
    const wrong = target(steps.at(-1) || node).value === -1;
    return [
      h("p", { className: "note" }, "Value targets at the last token of each step of the path to here",
        node.children.length ? " (a complete path, down to an answer, is what a training takes)." : "."),
      h("table", null, h("thead", null, h("tr", null, ["", "step", "target", "because"].map((name) => h("th", null, name)))),
        h("tbody", null, steps.map((one) => {
          const { value, why } = target(one);
          return h("tr", { onclick: () => this.onSelect(one) }, h("td", null, one.tag), h("td", { className: "words" }, oneLine(gist(one.text), 40)), h("td", null, number(value, 3)), h("td", { className: "words" }, why));
        }))),
      node.parent ? [h("h3", null, wrong ? "tokens: none is imitated, the path is wrong" : "tokens that are imitated"), this.#learned(node, wrong)] : null,
      pairs.length ? [h("h3", null, `preference pairs (Q apart by ${PAIR_MARGIN} or more)`), h("ul", null, pairs.map((one) => h("li", null,
        h("button", { className: "link", onclick: () => this.onSelect(one) }, one.q < node.q ? `preferred to ${one.tag}` : `dispreferred to ${one.tag}`), ` by ${number(Math.abs(one.q - node.q))}`)))] : null,
    ];
  }

  #learned(node, wrong) {
    const written = this.one.written[this.run ?? 0]?.[node.tag] ?? node.text.length;
    return h("pre", { className: "source", dir: "ltr", tabIndex: 0 }, h("span", { className: wrong ? "masked" : "learned" }, node.text.slice(0, written)),
      h("span", { className: "masked", title: "the observation is not imitated" }, node.text.slice(written)));
  }

  _record(node) {
    const { react, runs, ...rest } = this.one.record;
    return [h("h3", null, "node"), longText(JSON.stringify(node.saved, (key, value) => (key === "token_ids" ? `${value.length} ids` : value), 1)),
      h("h3", null, "question"), longText(JSON.stringify(rest, null, 1))];
  }
}

async function copy(button, text) {
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "copied";
  } catch {
    button.textContent = "the browser forbids it";
  }
  setTimeout(() => (button.textContent = "copy"), 1500);
}
