// A step as a person reads it: prose with mathematics, code, observations. Whatever cannot be typeset stays as it is.

import katex from "katex";
import { createLowlight } from "lowlight";
import python from "highlight.js/lib/languages/python";
import { h, oneLine, visible } from "./dom.js";

const lowlight = createLowlight({ python });
const LONG = 20000; // characters that are shown before a button asks for the rest
const LONG_MATHS = 4000;
const LONG_CODE = 50000; // longer code is not highlighted

// $$…$$, \[…\], \(…\), environments, and $…$ where no space or digit says that it is money.
const MATHS =
  /\$\$([\s\S]+?)\$\$|\\\[([\s\S]+?)\\\]|\\\(([\s\S]+?)\\\)|(\\begin\{(align|equation|gather|cases|array|[pbvBV]?matrix)(\*?)\}[\s\S]+?\\end\{\5\6\})|(?<![\\$])\$(?!\s)((?:\\.|[^$\\])+?)(?<!\s)\$(?![\d$])/g;

function maths(source, display, original) {
  const box = h("span", { className: display ? "maths display" : "maths" });
  if (source.length > LONG_MATHS) return visible(original);
  try {
    katex.render(source, box, { displayMode: display, trust: false, throwOnError: true, strict: "ignore", maxSize: 20, maxExpand: 500 });
  } catch {
    return visible(original);
  }
  return box;
}

export function prose(text) {
  const parts = [];
  let from = 0;
  for (const match of text.matchAll(MATHS)) {
    const display = match[1] ?? match[2] ?? match[4];
    parts.push(visible(text.slice(from, match.index)), maths(display ?? match[3] ?? match[7], display !== undefined, match[0]));
    from = match.index + match[0].length;
  }
  return [...parts, visible(text.slice(from))];
}

const coloured = (node) => (node.type === "text" ? visible(node.value) : h("span", { className: node.properties.className.join(" ") }, node.children.map(coloured)));

export function codeBlock(code) {
  const parts = code.length > LONG_CODE ? visible(code) : lowlight.highlight("python", code).children.map(coloured);
  return h("pre", { className: "code", dir: "ltr", tabIndex: 0 }, h("code", null, parts));
}

const observation = (text) => h("div", { className: "observation" }, h("span", { className: "label" }, "output"), h("pre", { dir: "ltr", tabIndex: 0 }, visible(text)));

// What the markups put around prose, code and observations.
const BLOCKS =
  /<code>\s*```\w*[^\S\n]*\n([\s\S]*?)\n?[^\S\n]*```\s*(?:<\/code>)?|<output>\n?([\s\S]*?)\n?<\/output>|```output[^\S\n]*\n([\s\S]*?)(?:\n```|$)|```(?:\w*)[^\S\n]*\n([\s\S]*?)(?:\n[^\S\n]*```|$)|Action Input:\s*([\s\S]*?)(?=\nObservation:|$)|\nObservation:[^\S\n]?([\s\S]*)$/g;
const FRAME = /<\/?(?:step|p|code|output)>\s?/g;

const unfenced = (code) => code.replace(/^\s*```\w*[^\S\n]*\n/, "").replace(/\n?[^\S\n]*```\s*$/, "");

/** The parts of a step's text. */
export function step(text) {
  if (text.length > LONG) return longText(text);
  const parts = [];
  const say = (piece) => {
    const words = piece.replace(FRAME, "").trim();
    if (words) parts.push(h("div", { className: "prose", dir: "auto" }, prose(words)));
  };
  let from = 0;
  for (const match of text.matchAll(BLOCKS)) {
    say(text.slice(from, match.index));
    const code = match[1] ?? match[4] ?? match[5];
    parts.push(code !== undefined ? codeBlock(unfenced(code)) : observation(match[2] ?? match[3] ?? match[6]));
    from = match.index + match[0].length;
  }
  say(text.slice(from));
  return parts;
}

/** Text as it is; of a very long one its beginning and a button. */
export function longText(text, className = "source") {
  const box = h("pre", { className, dir: "ltr", tabIndex: 0 });
  const show = (end) => {
    box.replaceChildren(...visible(text.slice(0, end)));
    if (end < text.length) {
      box.append(h("button", { className: "more", onclick: () => show(text.length) }, `show all ${text.length.toLocaleString("en-GB")} characters`));
    }
  };
  show(text.length > LONG ? LONG : text.length);
  return box;
}

/** What a step says, without its code; of one that says nothing, its code. */
export function gist(text) {
  const words = text.replace(BLOCKS, " ").replace(FRAME, "").replace(/^\s*Thought:/, "").replace(/\s+/g, " ").trim();
  return words || text.replace(FRAME, "").replace(/```\w*/g, "").replace(/\s+/g, " ").trim();
}

/** What a step says and what its code printed, in `length` letters. */
export function label(text, length) {
  const output = [...text.matchAll(BLOCKS)].map((match) => match[2] ?? match[3] ?? match[6]).filter(Boolean).at(-1);
  if (!output?.trim()) return oneLine(gist(text), length);
  const shown = oneLine(output, Math.floor(length / 2) - 1);
  return `${oneLine(gist(text), length - [...shown].length - 3)} → ${shown}`;
}
