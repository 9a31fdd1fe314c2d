// A saved tree as the page uses it.

export const NOT_EVALUATED = -100;

/**
 * tag → node of a saved tree. `failures`: the published failure messages and their reasons; `verdicts`: answer → right,
 * wrong or null; `picked`: the tag of the prediction.
 */
export function readTree(saved, verdicts, failures, picked) {
  const nodes = new Map();
  for (const [tag, one] of Object.entries(saved)) {
    if (tag === "solutions") continue;
    const answer = one.final_answer || "";
    const failure = Object.hasOwn(failures, answer) ? failures[answer] : "";
    const terminal = one.terminal ?? Boolean(answer);
    nodes.set(tag, {
      tag,
      parent: null,
      children: [],
      depth: tag.split(".").length - 1,
      index: Number(tag.slice(tag.lastIndexOf(".") + 1)),
      text: one.text || "",
      answer: failure ? "" : answer,
      answered: Boolean(answer) && !failure,
      terminal,
      failed: terminal && (!answer || Boolean(failure)),
      reason: one.reason || failure,
      value: one.value === undefined || one.value === NOT_EVALUATED ? null : one.value,
      q: one.visit_count ? one.q_value : null,
      visits: one.visit_count ?? null,
      prior: one.prior ?? null,
      reward: one.reward ?? null,
      born: one.born ?? null,
      saved: one,
    });
  }
  for (const node of nodes.values()) {
    node.parent = nodes.get(node.tag.slice(0, Math.max(0, node.tag.lastIndexOf(".")))) || null;
    if (node.parent) node.parent.children.push(node);
  }
  for (const node of nodes.values()) node.children.sort((a, b) => a.index - b.index);
  for (const node of nodes.values()) node.verdict = verdict(node, verdicts);
  const order = breadthFirst(nodes.get("0"));
  for (const node of order.toReversed()) {
    node.pruned = node.children.length ? node.children.every((child) => child.pruned) : !node.answered;
    node.below = node.children.reduce((sum, child) => sum + 1 + child.below, 0);
  }
  for (let node = nodes.get(picked); node; node = node.parent) node.onPath = true;
  return { nodes, root: nodes.get("0"), order, picked: nodes.get(picked) || null };
}

function verdict(node, verdicts) {
  if (!node.answered) return undefined;
  return Object.hasOwn(verdicts, node.answer) ? verdicts[node.answer] : node.reward === null ? undefined : node.reward > 0;
}

function breadthFirst(root) {
  const order = [root];
  for (let at = 0; at < order.length; at++) order.push(...order[at].children);
  return order;
}

export function path(node) {
  const nodes = [];
  for (let at = node; at; at = at.parent) nodes.push(at);
  return nodes.reverse();
}

/** What a node is, in a word: told by its mark, never by its colour alone. */
export function kind(node) {
  if (!node.parent) return "question";
  if (node.failed) return "failed";
  if (node.answered) return node.verdict === true ? "right" : node.verdict === false ? "wrong" : node.verdict === null ? "undecided" : "answer";
  return node.children.length ? "step" : "unexpanded";
}

export const MARKS = { right: "✓", wrong: "✗", undecided: "?", answer: "=", failed: "!", question: "Q", step: "", unexpanded: "" };

/**
 * The tree after every simulation: `steps` of them, and `at(i)` → tag → {visits, sum}. Where the file says in which
 * simulation a node was made, the backups are repeated; `exact`: their end is what the file holds. Else levels of depth.
 */
export function replay(tree, config) {
  const recorded = tree.order.some((node) => node.born !== null);
  for (const node of tree.order) node.appears = recorded ? node.born ?? 0 : node.depth;
  const steps = tree.order.reduce((most, node) => Math.max(most, node.appears), 0);
  const backups = recorded ? backupsOf(tree, config) : [];
  const at = (last) => {
    const found = new Map();
    for (const { when, node, value } of backups) {
      if (when > last) break;
      for (let one = node; one; one = one.parent) {
        const sum = found.get(one.tag) || { visits: 0, sum: 0 };
        sum.visits += 1;
        sum.sum += value;
        found.set(one.tag, sum);
      }
    }
    return found;
  };
  return { recorded, steps, at, exact: recorded && agrees(tree, at(steps)) };
}

/** The values that each simulation backed up: rewards of new children, the leaf's estimate, estimates of children. */
function backupsOf(tree, config) {
  const found = [];
  const leaves = tree.order.filter((node) => node.children.length).sort((a, b) => a.children[0].appears - b.children[0].appears);
  for (const leaf of leaves) {
    const when = leaf.children[0].appears;
    for (const child of leaf.children) if (child.reward !== null) found.push({ when, node: child, value: child.reward });
    if (!config.update_leaf_value) found.push({ when, node: leaf, value: leaf.value ?? 0 });
    for (const child of leaf.children) {
      const counts = config.update_leaf_value ? !child.failed : !config.is_sampling && child.answered;
      if (counts && child.reward === null && !(config.need_value_func && child.value === null)) {
        found.push({ when, node: child, value: config.need_value_func ? child.value : 0 });
      }
    }
  }
  return found;
}

function agrees(tree, found) {
  return tree.order.every((node) => {
    const { visits, sum } = found.get(node.tag) || { visits: 0, sum: 0 };
    return visits === (node.visits ?? 0) && (!visits || Math.abs(sum / visits - node.q) < 1e-6);
  });
}

/** What a step would be trained towards: the outcome at a complete path's end, else the Q of the search. */
export function target(node) {
  if (node.failed) return { value: -1, why: "a failed path counts as wrong" };
  if (node.answered && !node.children.length) {
    const right = node.reward !== null ? node.reward > 0 : node.verdict;
    if (right === true) return { value: 1, why: "the answer is right" };
    if (right === false) return { value: -1, why: "the answer is wrong" };
    return { value: null, why: "no outcome: the answer is undecided or not graded" };
  }
  return node.visits ? { value: node.q, why: "Q of the search" } : { value: null, why: "never visited" };
}
