// Elements are made of text nodes and attributes alone: nothing that a model wrote is ever parsed as HTML.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, props, children) {
  for (const [name, value] of Object.entries(props || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && !(element instanceof SVGElement) && name !== "list") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...parts(children));
  return element;
}

const parts = (children) => children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);

/** Gives an element other children. */
export const put = (element, ...children) => element.replaceChildren(...parts(children));

export const h = (tag, props, ...children) => fill(document.createElement(tag), props, children);
export const s = (tag, props, ...children) => fill(document.createElementNS(SVG, tag), props, children);
export const byId = (id) => document.getElementById(id);

/** A control character, or one that turns the direction of text or has no width: shown as its code, not obeyed. */
const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u115f\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]|[\u{e0000}-\u{e0fff}]/gu;

const code = (char) => `U+${char.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;

/** Text with hidden characters as marks of their own. */
export function visible(text) {
  const parts = [];
  let from = 0;
  for (const match of text.matchAll(HIDDEN)) {
    parts.push(text.slice(from, match.index), h("span", { className: "hidden-char", title: "a character that is not drawn" }, code(match[0])));
    from = match.index + match[0].length;
  }
  return [...parts, text.slice(from)];
}

/** One line without hidden characters, cut to `length`. */
export function oneLine(text, length) {
  const line = text.slice(0, 4 * length).replace(HIDDEN, (char) => `⟨${code(char)}⟩`).replace(/\s+/g, " ").trim();
  const letters = [...line];
  return letters.length > length ? `${letters.slice(0, length - 1).join("")}…` : line;
}

export function number(value, digits = 2) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  return value.toFixed(digits).replace("-", "−");
}

export const count = (value) => (Number.isFinite(value) ? value.toLocaleString("en-GB") : "–");
