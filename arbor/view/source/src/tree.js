// The drawing of a tree: one row a leaf, one column a step.

import { hierarchy, tree as tidyTree } from "d3-hierarchy";
import { byId, h, number, oneLine, s } from "./dom.js";
import { MARKS, kind } from "./model.js";
import { label } from "./text.js";

const ROW = 23;
const COLUMN = 146;
const MANY = 600; // nodes that are drawn at first; the rest of a larger tree begins folded

// Diverging from orange (−1) over grey to blue (+1): told apart with every common colour blindness.
const SCALES = {
  light: [[176, 80, 0], [236, 164, 88], [214, 214, 214], [110, 168, 216], [18, 92, 168]],
  dark: [[255, 160, 60], [190, 122, 60], [112, 112, 112], [84, 142, 200], [110, 184, 255]],
};

export function colour(value, theme) {
  if (value === null) return null;
  const scale = SCALES[theme];
  const at = ((Math.max(-1, Math.min(1, value)) + 1) / 2) * (scale.length - 1);
  const low = Math.min(scale.length - 2, Math.floor(at));
  return `rgb(${scale[low].map((from, i) => Math.round(from + (scale[low + 1][i] - from) * (at - low))).join(",")})`;
}

/** What a node is coloured by. */
export const MEASURES = {
  q: (node, now) => (now ? now.sum / now.visits : node.q ?? null),
  value: (node) => node.value,
};

export class TreeView {
  /** onSelect(node): a node was chosen by mouse or keyboard. */
  constructor(onSelect) {
    this.onSelect = onSelect;
    this.folded = new Set();
    this.zoom = 1;
    this.canvas = s("svg", { role: "tree", "aria-label": "search tree", tabindex: "0", class: "tree" });
    this.box = h("div", { className: "tree-box" }, this.canvas);
    this.canvas.addEventListener("click", (event) => this.#click(event));
    this.canvas.addEventListener("keydown", (event) => this.#key(event));
    this.box.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      this.scale(this.zoom * (event.deltaY < 0 ? 1.15 : 1 / 1.15));
    }, { passive: false });
    drag(this.box);
  }

  show(tree, options) {
    this.tree = tree;
    this.options = options;
    this.folded = tree.order.length > MANY ? folds(tree) : new Set();
    this.selected = tree.picked || tree.root;
    for (let node = this.selected.parent; node; node = node.parent) this.folded.delete(node.tag);
    this.draw();
    this.box.scrollLeft = 0;
    this.reveal(this.selected, true);
  }

  /** Draws again. options: {measure, theme, replay: null or {last, found}}. */
  draw(options = this.options) {
    this.options = options;
    const last = options.replay ? options.replay.last : Infinity;
    const seen = (node) => node.appears === undefined || node.appears <= last;
    const root = hierarchy(this.tree.root, (node) => (this.folded.has(node.tag) ? [] : node.children.filter(seen)));
    tidyTree().nodeSize([ROW, COLUMN]).separation(() => 1)(root);
    const places = root.descendants();
    let top = 0, bottom = 0, right = 0;
    for (const place of places) {
      top = Math.min(top, place.x);
      bottom = Math.max(bottom, place.x);
      right = Math.max(right, place.y);
    }
    this.size = [right + COLUMN + 40, bottom - top + 2 * ROW];
    this.places = new Map(places.map((place) => [place.data.tag, [place.y + 22, place.x - top + ROW]]));
    const parts = places.flatMap((place) => this.#edge(place));
    this.canvas.replaceChildren(...parts, ...places.map((place) => this.#node(place)));
    this.scale(this.zoom);
    this.#mark();
  }

  #edge(place) {
    if (!place.parent) return [];
    const node = place.data;
    const [x0, y0] = this.places.get(place.parent.data.tag);
    const [x1, y1] = this.places.get(node.tag);
    const middle = x0 + 30;
    const now = this.options.replay && node.appears === this.options.replay.last && this.options.replay.last > 0;
    const line = s("path", {
      d: `M${x0},${y0}C${middle},${y0} ${middle - 12},${y1} ${middle + 14},${y1}H${x1}`,
      class: `edge${node.onPath ? " picked" : ""}${node.pruned ? " pruned" : ""}${now ? " new" : ""}`,
      "stroke-width": node.onPath ? 3.2 : 0.6 + 1.6 * (node.prior ?? 0.4),
    });
    if (node.prior === null) return [line];
    return [line, s("text", { x: x1 - 14, y: y1 - 3, class: "prior", "text-anchor": "end" }, number(node.prior).replace("0.", "."))];
  }

  #node(place) {
    const node = place.data;
    const [x, y] = this.places.get(node.tag);
    const found = this.options.replay?.found;
    const now = found ? found.get(node.tag) : null;
    const visits = found ? now?.visits ?? 0 : node.visits;
    const value = found && !now && this.options.measure === "q" ? null : MEASURES[this.options.measure](node, now);
    const what = kind(node);
    const radius = visits === null ? 6 : Math.min(10, 4 + 1.15 * Math.log2(1 + visits));
    const fill = colour(value, this.options.theme);
    const name = node.parent ? (node.answered ? `= ${oneLine(node.answer, 13)}` : label(node.text, 16)) : "question";
    const folded = this.folded.has(node.tag) && node.children.length;
    const mark = MARKS[what];
    return s("g", {
      class: `node ${what}${node.onPath ? " picked" : ""}${node.pruned ? " pruned" : ""}`,
      id: this.#id(node), "data-tag": node.tag, role: "treeitem", transform: `translate(${x},${y})`,
      "aria-level": node.depth + 1, "aria-label": describe(node, value, visits), "aria-expanded": node.children.length ? String(!folded) : null,
    },
    s("title", null, describe(node, value, visits)),
    s("rect", { class: "hit", x: -radius, y: -ROW / 2, width: 110, height: ROW }),
    s("circle", { r: radius, class: fill ? "disc" : "disc unknown", fill }),
    mark && mark !== "Q" ? s("text", { class: `mark ${what}`, x: radius + 5, y: 4 }, mark) : null,
    folded ? s("text", { class: "folded", x: radius + 4, y: 4 }, `+${node.below}`) : null,
    s("text", { class: "name", x: radius + (mark && mark !== "Q" ? 17 : folded ? 34 : 5), y: 4 }, name));
  }

  #id = (node) => `${(this.prefix ??= `t${Math.random().toString(36).slice(2, 7)}`)}-${node.tag.replaceAll(".", "_")}`;

  #mark() {
    this.canvas.querySelector(".selected")?.classList.remove("selected");
    const element = byId(this.#id(this.selected));
    element?.classList.add("selected");
    element?.setAttribute("aria-selected", "true");
    this.canvas.setAttribute("aria-activedescendant", this.#id(this.selected));
  }

  select(node, tell = true) {
    let hidden = false;
    for (let one = node.parent; one; one = one.parent) hidden = this.folded.delete(one.tag) || hidden;
    this.selected = node;
    if (hidden) this.draw();
    this.#mark();
    this.reveal(node);
    if (tell) this.onSelect(node, this);
  }

  reveal(node, start = false) {
    const place = this.places.get(node.tag);
    if (!place) return;
    const [x, y] = place.map((at) => at * this.zoom);
    const { scrollLeft, scrollTop, clientWidth, clientHeight } = this.box;
    if (start || y < scrollTop + 20 || y > scrollTop + clientHeight - 30) this.box.scrollTop = y - clientHeight / 2;
    const beyond = x + COLUMN * this.zoom - scrollLeft - clientWidth;
    if (beyond > 0) this.box.scrollLeft += beyond;
    if (x < this.box.scrollLeft + 20) this.box.scrollLeft = x - 40;
  }

  scale(zoom) {
    const before = this.zoom;
    const { scrollLeft, scrollTop, clientWidth, clientHeight } = this.box;
    this.zoom = Math.max(0.08, Math.min(3, zoom));
    const [width, height] = this.size;
    this.canvas.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.canvas.setAttribute("width", width * this.zoom);
    this.canvas.setAttribute("height", height * this.zoom);
    const change = this.zoom / before;
    if (change !== 1) this.box.scrollTo((scrollLeft + clientWidth / 2) * change - clientWidth / 2, (scrollTop + clientHeight / 2) * change - clientHeight / 2);
  }

  fit() {
    this.scale(Math.min(this.box.clientWidth / this.size[0], this.box.clientHeight / this.size[1], 1.5));
  }

  fold(node) {
    if (!node.children.length) return;
    if (!this.folded.delete(node.tag)) this.folded.add(node.tag);
    this.draw();
    this.reveal(node);
  }

  #click(event) {
    const tag = event.target.closest("[data-tag]")?.getAttribute("data-tag");
    if (!tag) return;
    const node = this.tree.nodes.get(tag);
    if (event.detail === 2) this.fold(node);
    else this.select(node);
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const node = this.selected;
    const level = [...this.places.keys()].map((tag) => this.tree.nodes.get(tag)).filter((one) => one.depth === node.depth);
    const at = level.indexOf(node);
    const to = {
      ArrowLeft: () => node.parent,
      ArrowRight: () => (this.folded.has(node.tag) ? this.fold(node) : node.children.find((one) => one.onPath && this.places.has(one.tag)) || node.children.find((one) => this.places.has(one.tag))),
      ArrowUp: () => level[at - 1],
      ArrowDown: () => level[at + 1],
      Home: () => this.tree.root,
      End: () => this.tree.picked,
      Enter: () => this.fold(node),
    }[event.key];
    if (!to) return;
    event.preventDefault();
    event.stopPropagation();
    const next = to();
    if (next) this.select(next);
  }
}

/** What is folded of a large tree: all but the picked path and then the most visited branches with an answer below. */
function folds(tree) {
  const inner = tree.order.filter((node) => node.children.length);
  const rank = (node) => [node.onPath ? 1 : 0, node.pruned ? 0 : 1, node.visits ?? 0, -node.depth];
  const ranks = new Map(inner.map((node) => [node, rank(node)]));
  inner.sort((a, b) => ranks.get(b).reduce((found, one, at) => found || one - ranks.get(a)[at], 0));
  const opened = new Set();
  let drawn = 1;
  for (const node of inner) {
    if (drawn + node.children.length > MANY && !node.onPath && node.parent) continue;
    if (node.parent && !opened.has(node.parent)) continue;
    opened.add(node);
    drawn += node.children.length;
  }
  return new Set(inner.filter((node) => !opened.has(node)).map((node) => node.tag));
}

function describe(node, value, visits) {
  const facts = [`node ${node.tag}`, kind(node)];
  if (node.answered) facts.push(`answer ${oneLine(node.answer, 60)}`);
  if (node.reason) facts.push(node.reason);
  if (value !== null) facts.push(`estimate ${number(value)}`);
  if (visits !== null) facts.push(`${visits} visits`);
  if (node.onPath) facts.push("on the picked path");
  if (node.pruned && !node.failed) facts.push("no answer below");
  return facts.join(", ");
}

/** Dragging the empty ground scrolls. */
function drag(box) {
  let from = null;
  box.addEventListener("pointerdown", (event) => {
    if (event.button === 0 && !event.target.closest("[data-tag]")) from = [event.clientX + box.scrollLeft, event.clientY + box.scrollTop];
  });
  box.addEventListener("pointermove", (event) => {
    if (from && event.buttons) box.scrollTo(from[0] - event.clientX, from[1] - event.clientY);
  });
  for (const end of ["pointerup", "pointerleave"]) box.addEventListener(end, () => (from = null));
}
