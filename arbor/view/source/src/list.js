// The list of questions and its filters.

import { count, h, number, oneLine } from "./dom.js";
import { MARKS } from "./model.js";

export const VERDICTS = ["right", "wrong", "undecided", "unanswered", "ungraded"];
export const SIGNS = { ...MARKS, unanswered: "∅", ungraded: "=" };
const WINNERS = { both: "both right", first: "only A right", second: "only B right", neither: "neither right" };
const PAGE = 400; // rows that are drawn before the list is scrolled to their end

const ORDERS = {
  "in order": null,
  "most tokens": (one) => -(one.tokens ?? -1),
  "largest value error": (one) => -(one.error ?? -1),
  "most nodes": (one) => -one.nodes,
  "slowest": (one) => -(one.seconds ?? -1),
};

/** Who was right of a pair of entries. */
export function winner(first, second) {
  const [a, b] = [first.verdict === "right", second.verdict === "right"];
  return a && b ? "both" : a ? "first" : b ? "second" : "neither";
}

export class QuestionList {
  constructor(onChoose) {
    this.onChoose = onChoose;
    this.chosen = -1;
    this.shown = [];
    this.kinds = new Set();
    this.search = h("input", { type: "search", placeholder: "Search text, answers  ( / )", "aria-label": "search questions", oninput: () => this.apply() });
    this.chips = h("div", { className: "chips", role: "group", "aria-label": "verdicts" });
    this.reason = this.#choice("reason");
    this.method = this.#choice("method");
    this.group = this.#choice("type or level");
    this.order = h("select", { "aria-label": "order", onchange: () => this.apply() }, Object.keys(ORDERS).map((name) => h("option", null, name)));
    this.tokens = this.#least("tokens ≥", 1);
    this.error = this.#least("value error ≥", 0.1);
    this.count = h("span", { className: "count", role: "status" });
    this.rows = h("div", { className: "rows", role: "listbox", tabIndex: 0, "aria-label": "questions", onscroll: () => this.#more(), onkeydown: (event) => this.#key(event) });
    this.element = h("section", { className: "list", "aria-label": "questions" }, this.search, this.chips,
      h("details", { className: "filters" }, h("summary", null, "filters and order ", this.count),
        h("div", { className: "grid" }, this.reason, this.method, this.group, this.order, this.tokens.label, this.error.label)), this.rows);
  }

  #choice(name) {
    return h("select", { "aria-label": name, title: name, onchange: () => this.apply() });
  }

  #least(name, step) {
    const input = h("input", { type: "number", min: 0, step, oninput: () => this.apply() });
    return { input, label: h("label", null, `${name} `, input) };
  }

  /** rows: [{first, second, index: [i, j]}], second null where one file is shown. */
  take(rows, two) {
    this.all = rows;
    this.two = two;
    fillChoice(this.reason, "any reason", rows.flatMap(sides).map((one) => one.reason));
    fillChoice(this.method, "any method", rows.flatMap(sides).map((one) => one.method));
    fillChoice(this.group, "any type or level", rows.flatMap(({ first }) => [first.type && `type: ${first.type}`, first.level && `level: ${first.level}`]));
    for (const choice of [this.reason, this.method, this.group]) choice.hidden = choice.options.length < 2;
    this.#drawChips();
    this.apply();
  }

  #drawChips() {
    const kinds = this.two ? Object.keys(WINNERS) : VERDICTS;
    const sums = Object.fromEntries(kinds.map((kind) => [kind, 0]));
    for (const row of this.all) sums[this.#kind(row)] += 1;
    this.chips.replaceChildren(...kinds.filter((kind) => sums[kind]).map((kind) => h("button", {
      className: `chip ${kind}`, "aria-pressed": String(this.kinds.has(kind)), "data-kind": kind,
      onclick: (event) => {
        if (!this.kinds.delete(kind)) this.kinds.add(kind);
        event.currentTarget.setAttribute("aria-pressed", String(this.kinds.has(kind)));
        this.apply();
      },
    }, h("span", { className: "sign" }, this.two ? "" : SIGNS[kind]), `${this.two ? WINNERS[kind] : kind} `, h("b", null, count(sums[kind])))));
  }

  #kind = (row) => (this.two ? winner(row.first, row.second) : row.first.verdict);

  apply() {
    const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const [tokens, error] = [this.tokens.input, this.error.input].map((input) => (input.value === "" ? null : Number(input.value)));
    const key = ORDERS[this.order.value];
    this.found = this.all.filter((row) => {
      if (this.kinds.size && !this.kinds.has(this.#kind(row))) return false;
      const { first } = row;
      if (this.group.value && ![`type: ${first.type}`, `level: ${first.level}`].includes(this.group.value)) return false;
      if (words.length) {
        const text = sides(row).map((one) => `${one.question} ${one.prediction} ${one.answer}`).join(" ").toLowerCase();
        if (!words.every((word) => text.includes(word))) return false;
      }
      return sides(row).some((one) => (!this.reason.value || one.reason === this.reason.value) && (!this.method.value || one.method === this.method.value)
        && (tokens === null || (one.tokens ?? -1) >= tokens) && (error === null || (one.error ?? -1) >= error));
    });
    if (key) this.found.sort((a, b) => key(a.first) - key(b.first));
    this.count.textContent = this.found.length === this.all.length ? `(${count(this.all.length)})` : `(${count(this.found.length)} of ${count(this.all.length)})`;
    this.rows.replaceChildren();
    this.#more();
    this.#mark();
    if (!this.found.length) this.rows.append(h("p", { className: "none" }, "No question passes these filters."));
  }

  #more() {
    const { rows } = this;
    const drawn = rows.childElementCount;
    if (drawn >= this.found.length || (drawn && rows.scrollTop + rows.clientHeight < rows.scrollHeight - 300)) return;
    rows.append(...this.found.slice(drawn, drawn + PAGE).map((row) => this.#row(row)));
  }

  #row(row) {
    const { first, second } = row;
    const facts = this.two
      ? [`A = ${oneLine(first.prediction || "∅", 14)}`, `B = ${oneLine(second.prediction || "∅", 14)}`]
      : [first.prediction ? `= ${oneLine(first.prediction, 18)}` : first.reason || "no answer",
        first.tokens !== null ? `${count(first.tokens)} tokens` : null, first.error !== null ? `error ${number(first.error)}` : null];
    return h("div", { className: "row", role: "option", id: `row-${row.index[0]}`, onclick: () => this.choose(row) },
      h("span", { className: "signs" }, sides(row).map((one) => h("span", { className: `sign ${one.verdict}`, title: one.verdict }, SIGNS[one.verdict]))),
      h("span", { className: "words" }, h("span", { className: "question" }, `${row.index[0] + 1}. ${oneLine(first.question, 110)}`),
        h("span", { className: "facts" }, facts.filter(Boolean).join(" · "))));
  }

  choose(row) {
    this.chosen = row.index[0];
    while (!this.#mark() && this.rows.childElementCount < this.found.length) {
      const drawn = this.rows.childElementCount;
      this.rows.append(...this.found.slice(drawn, drawn + PAGE).map((one) => this.#row(one)));
    }
    this.onChoose(row);
  }

  #mark() {
    for (const element of this.rows.querySelectorAll("[aria-selected]")) element.removeAttribute("aria-selected");
    const element = this.rows.querySelector(`#row-${this.chosen}`);
    element?.setAttribute("aria-selected", "true");
    element?.scrollIntoView({ block: "nearest" });
    if (element) this.rows.setAttribute("aria-activedescendant", element.id);
    return Boolean(element);
  }

  /** The question `by` places further in the list as it is filtered. */
  move(by) {
    if (!this.found.length) return;
    const at = this.found.findIndex((row) => row.index[0] === this.chosen);
    this.choose(this.found[Math.max(0, Math.min(this.found.length - 1, at < 0 ? 0 : at + by))]);
  }

  #key(event) {
    const by = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity }[event.key];
    if (by === undefined || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    this.move(by);
  }
}

const sides = (row) => (row.second ? [row.first, row.second] : [row.first]);

function fillChoice(select, any, values) {
  const before = select.value;
  const found = [...new Set(values.filter(Boolean))].sort();
  select.replaceChildren(h("option", { value: "" }, any), ...found.map((value) => h("option", { value }, oneLine(value, 40))));
  select.value = found.includes(before) ? before : "";
}
