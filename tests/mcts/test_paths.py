"""From trees to examples: which paths are taken, what their steps are worth, and what is refused."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import pytest

from mcts.config import Config
from mcts.errors import UserError
from mcts.markup import ReactMarkup, SftMarkup
from mcts.trees.file import read_tree_lines
from mcts.trees.node import TOO_DEEP, UNPARSABLE, Node
from mcts.trees.record import to_record
from models.training.examples import (
    ExampleRules,
    Extraction,
    Origin,
    Writer,
    choose,
    complete_paths,
    file_hash,
    grades_path,
    write_examples,
)
from tests.conftest import write_jsonl


class Letters:
    """One token a character."""

    def encode(self, text: str) -> tuple[int, ...]:
        return tuple(map(ord, text))

    encode_start = encode

    def ends(self, ids: tuple[int, ...], text: str) -> tuple[int, ...]:
        return tuple(range(1, len(ids) + 1))


MARKUP = SftMarkup()
META = {
    "index": 0,
    "config": {"prompt_wrap": "react_sft", "result_unwrap": "react_sft", "step_delim": "\n"},
    "model": {"name": "m", "weights": "abc"},
}


def child(parent: Node, text: str, q: float = 0.0, visits: int = 1, **fields: object) -> Node:
    node = Node(f"{parent.tag}.{len(parent.children)}", parent, parent.depth + 1, text, visit_count=visits, **fields)
    node.value_sum = q * visits
    parent.children.append(node)
    return node


def code(parent: Node, name: str, q: float, visits: int = 2) -> Node:
    text = f"<step>{name}</code>\n<output>\n7\n</output>\n</step>"
    return child(parent, text, q, visits, action="python_interpreter", action_input="x")


def answer(parent: Node, text: str, reward: float | None) -> Node:
    return child(
        parent, f"<step>{text}</step>", reward or 0.0, int(reward is not None),
        final_answer=text, terminal=True, reward=reward,
    )  # fmt: skip


def small_tree() -> Node:
    """Two code steps; below the first a right, a wrong, an undecided answer and a failure; below the second a wrong."""
    root = Node(extra_info="question: Why?")
    first, second = code(root, "a", 0.25), code(root, "b", -0.75)
    answer(first, "1", 1.0)
    answer(first, "2", -1.0)
    answer(first, "undecided", None)
    child(first, "nonsense", -1.0, final_answer=UNPARSABLE, terminal=True, reward=-1.0)
    answer(second, "3", -1.0)
    child(second, "never visited", visits=0)
    return root


def record(*roots: Node, **fields: object) -> dict:
    runs = [to_record(root, searched=True) for root in roots]
    return {"question": "Why?", "answer": "1", "react": runs[0], "runs": runs[1:], "meta": META} | fields


def extraction(markup=MARKUP, weights=frozenset({"abc"}), **rules: object) -> Extraction:
    keys = ExampleRules.model_validate(rules)
    writer = Writer(Letters(), markup, keys.mask_observations, keys.value_only)
    return Extraction(keys, writer, Origin(markup, "react_sft", weights))


def text_of(line: dict) -> str:
    return "".join(map(chr, line["token_ids"]))


def test_paths_carry_q_inside_and_the_outcome_at_the_end():
    lines = list(extraction(correct=4, wrong=4).examples("f:1", record(small_tree())))
    right = [line for line in lines if line["correct"]]
    assert len(lines) == 4 and len(right) == 1
    text, prompt = text_of(right[0]), MARKUP.prompt("Why?")
    step = "<step>a</code>\n<output>\n7\n</output>\n</step>\n"
    assert text == f"{prompt}{step}<step>1</step>\n"
    assert right[0]["targets"] == [[len(prompt + step) - 1, 0.25], [len(text) - 1, 1.0]]
    assert {line["targets"][-1][1] for line in lines if not line["correct"]} == {-1.0}
    assert {line["group"] for line in lines} == {"f:1"}


def test_the_policy_learns_what_it_wrote_and_not_what_the_interpreter_printed():
    (line,) = extraction(wrong=0).examples("f:1", record(small_tree()))
    learned = "".join(char for char, own in zip(text_of(line), line["loss_mask"], strict=True) if own)
    assert learned == "<step>a</code><step>1</step>"
    (open_line,) = extraction(wrong=0, mask_observations=False).examples("f:1", record(small_tree()))
    assert sum(open_line["loss_mask"]) == len(open_line["loss_mask"]) - len(MARKUP.prompt("Why?"))
    (value_line,) = extraction(wrong=0, value_only=True).examples("f:1", record(small_tree()))
    assert sum(value_line["loss_mask"]) == 0 and value_line["targets"] == line["targets"]


def test_token_ids_of_the_search_are_kept_as_they_are():
    root = small_tree()
    root.token_ids = (1, 2, 3)
    for node in (root.children[0], root.children[0].children[0]):
        node.token_ids = tuple(2000 + i for i in range(len(node.text) + 1))
    (line,) = extraction(wrong=0).examples("f:1", record(root))
    assert line["token_ids"][:5] == [1, 2, 3, 2000, 2001] and len(line["token_ids"]) == len(line["loss_mask"])


def test_undecided_answers_are_left_out_and_failures_on_request():
    lines = list(extraction().examples("f:1", record(small_tree())))
    assert not any("undecided" in text_of(line) for line in lines)
    assert sum("nonsense" in text_of(line) for line in lines) == 1
    assert not any(
        "nonsense" in text_of(line) for line in extraction(failures=False).examples("f", record(small_tree()))
    )


def test_grades_stand_in_for_rewards_and_outcomes_for_q():
    root = Node()
    step = code(root, "a", 0.0, visits=0)
    answer(step, "1", None), answer(step, "2", None), answer(step, "3", None)
    grades = [{"0.0.0": True, "0.0.1": False, "0.0.2": None}]
    lines = list(extraction(targets="outcome").examples("f:1", record(root), grades))
    assert [[value for _, value in line["targets"]] for line in lines] == [[1, 1], [-1, -1]]
    unvisited = list(extraction().examples("f:1", record(root), grades))
    assert [[value for _, value in line["targets"]] for line in unvisited] == [[1], [-1]]


def test_a_step_is_worth_the_best_found_after_it_in_any_run():
    runs = []
    for names in ("ab", "ac", "db"):  # the first is right
        step = root = Node()
        for name in names:
            step = code(step, name, 0.0, visits=0)
        answer(step, "1" if names == "ab" else f"not {names}", None)
        runs.append(root)
    grades = [{"0.0.0.0": names == "ab"} for names in ("ab", "ac", "db")]
    lines = list(extraction(targets="best").examples("f:1", record(*runs), grades))
    found = {text_of(line).count("not ac") + 2 * text_of(line).count("not db"): line["targets"] for line in lines}
    assert [[value for _, value in found[at]] for at in (0, 1, 2)] == [[1, 1, 1], [1, -1, -1], [-1, -1, -1]]
    unsolved = list(extraction(targets="best").examples("f:1", record(*runs[1:]), grades[1:]))
    assert [[value for _, value in line["targets"]] for line in unsolved] == [[-1], [-1]]  # nothing known inside


def many_answers() -> Node:
    root = Node()
    for name, q in (("a", 0.9), ("b", 0.1), ("c", -0.4)):
        step = code(root, name, q)
        for i in range(4):
            answer(step, f"{name}{i}", 1.0)
            answer(step, f"{name}{i} wrong", -1.0)
    return root


def test_choices_are_limited_distinct_and_a_function_of_the_seed():
    def taken(**rules):
        return [text_of(line) for line in extraction(**rules).examples("f:1", record(many_answers(), many_answers()))]

    assert len(taken(correct=3, wrong=2)) == 5 == len(set(taken(correct=3, wrong=2)))
    assert len(taken(correct=100, wrong=0)) == 12  # the second run says the same
    assert taken(seed=1) == taken(seed=1) != taken(seed=2)
    firsts = {text.partition("<step>")[2][0] for text in taken(correct=3, wrong=0, choice="spread")}
    assert firsts == {"a", "b", "c"}
    surest = taken(correct=4, wrong=0, choice="q_value")
    assert {text.partition("<step>")[2][0] for text in surest} == {"a"}


@pytest.mark.parametrize("choice", ["random", "q_value", "spread"])
def test_every_path_is_taken_at_most_once(choice):
    paths = list(complete_paths(many_answers(), 0, {}, True))
    for n in (0, 1, 7, 24, 50):
        found = choose(paths, n, choice, random.Random(0))
        assert len(found) == len(set(map(id, found))) == min(n, 24)


def test_pairs_are_visited_siblings_apart_by_the_margin():
    lines = [line for line in extraction(pairs=10).examples("f:1", record(small_tree())) if line["kind"] == "pair"]
    margins = [line["chosen"]["q_value"] - line["rejected"]["q_value"] for line in lines]
    assert len(lines) == 3 and all(margin >= 0.5 for margin in margins)  # a over b; 1 over 2 and over the failure
    deep = next(line for line in lines if line["chosen"]["q_value"] == 1.0)
    before = "".join(map(chr, deep["prefix"]))
    assert before == MARKUP.prompt("Why?") + "<step>a</code>\n<output>\n7\n</output>\n</step>\n"
    assert "".join(map(chr, deep["chosen"]["token_ids"])) == "<step>1</step>\n"
    assert len(deep["chosen"]["loss_mask"]) == len(deep["chosen"]["token_ids"])
    widest = extraction(pairs=1, choice="q_value", correct=0, wrong=0).examples("f:1", record(small_tree()))
    assert next(iter(widest))["chosen"]["q_value"] == 1.0
    none = extraction(pairs=9, pair_margin=2.5).examples("f:1", record(small_tree()))
    assert not any(line["kind"] == "pair" for line in none)


def test_the_data_card_counts(tmp_path: Path):
    hopeless = Node()
    child(code(hopeless, "a", -1.0), "x", -1.0, final_answer=TOO_DEEP, terminal=True, reward=-1.0)
    trees = write_jsonl(tmp_path / "t.jsonl", [record(small_tree()), record(hopeless)])
    card = write_examples([trees], extraction(pairs=2), tmp_path / "e.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "e.jsonl").read_text().splitlines()]
    assert card == json.loads((tmp_path / "e.card.json").read_text())
    counts = card["counts"]
    assert counts["questions"] == 2 and counts["questions with a correct path"] == 1
    assert counts["correct paths"] == 1 and counts["wrong paths"] == 4 and counts["pairs"] == 2
    assert counts["undecided answers"] == 1 and counts["distinct correct paths"] == 1
    assert counts["tokens"] == sum(len(line["token_ids"]) for line in lines if line["kind"] == "path")
    assert card["files"][str(trees)]["without a correct path"] == [f"{trees}:2"]
    longest = max(
        len(line["token_ids"])
        if line["kind"] == "path"
        else len(line["prefix"]) + max(len(line[side]["token_ids"]) for side in ("chosen", "rejected"))
        for line in lines
    )
    shares = card["files"][str(trees)]["tokens of an example at most"]
    assert shares["50 %"] <= shares["95 %"] <= shares["100 %"] == longest
    assert lines[0]["group"] == f"{trees}:1"


def test_grades_beside_the_trees_are_used(tmp_path: Path):
    root = Node()
    answer(code(root, "a", 0.0), "1", None)
    trees = write_jsonl(tmp_path / "t.jsonl", [record(root)])
    grades = {"line": 0, "trees": file_hash(trees), "grades": [{"0.0.0": True}]}
    write_jsonl(grades_path(trees), [grades])
    assert write_examples([trees], extraction(), tmp_path / "e.jsonl")["counts"]["correct paths"] == 1
    line = trees.read_text(encoding="utf-8")
    for text, rows in (
        (line.replace("Why?", "Who?"), [grades]),
        (line, []),
        (line, [{"line": 0, "grades": [{"0.0.0": True}]}]),
        (line, [{**grades, "line": 1}]),
    ):
        trees.write_text(text, encoding="utf-8")
        write_jsonl(grades_path(trees), rows)
        with pytest.raises(
            UserError, match=r"t\.jsonl\.grades: not the verdicts on t\.jsonl as it is now; .*grade_trees"
        ):
            write_examples([trees], extraction(), tmp_path / "f.jsonl")
    assert not (tmp_path / "f.jsonl").exists()


def broken_lines() -> dict[str, tuple[str, list[str]]]:
    good = json.dumps(record(small_tree()))
    other_markup = json.dumps(record(small_tree(), meta={**META, "config": {}}))
    other_model = json.dumps(record(small_tree(), meta={**META, "model": {"name": "other", "weights": "xyz"}}))
    no_meta = json.loads(good)
    del no_meta["meta"]
    no_parent = json.loads(good)
    del no_parent["react"]["0.0"]
    hopeless = Node()
    answer(hopeless, "2", -1.0)
    return {
        "cut": (f"{good}\n{good[: len(good) // 2]}", [":2", "not valid JSON"]),
        "markup": (f"{good}\n{other_markup}\n", [":2", "markup react ", "expected react_sft"]),
        "model": (f"{good}\n{other_model}\n", [":2", "other (xyz)", "--any-model"]),
        "no meta": (json.dumps(no_meta), [":1", "--any-model"]),
        "no parent": (json.dumps(no_parent), [":1", "0.0.0", "parent"]),
        "empty": ("", ["no tree in it"]),
        "not a tree": ('{"a": 1}\n', [":1", "react"]),
        "no correct path": (json.dumps(record(hopeless)), [":1", "no correct path", "iterations"]),
    }


@pytest.mark.parametrize("name", broken_lines())
def test_files_that_cannot_be_learned_from_are_named(tmp_path: Path, name: str):
    content, words = broken_lines()[name]
    (tmp_path / "t.jsonl").write_text(content)
    with pytest.raises(UserError) as error:
        write_examples([tmp_path / "t.jsonl"], extraction(), tmp_path / "e.jsonl")
    assert "t.jsonl" in str(error.value) and all(word in str(error.value) for word in words), error.value
    assert not (tmp_path / "e.jsonl").exists() and "\n" not in str(error.value)


def test_any_model_takes_trees_of_the_published_system(reference: Path, tmp_path: Path):
    with gzip.open(reference / "golden/mcts_sampling_True.trees.jsonl.gz", "rt", encoding="utf-8") as lines:
        (tmp_path / "old.jsonl").write_text(lines.read(), encoding="utf-8")
    rows, version = [], file_hash(tmp_path / "old.jsonl")
    for number, (_, old) in enumerate(read_tree_lines(tmp_path / "old.jsonl")):
        leaves = [tag for tag, node in old["react"].items() if node.get("final_answer")]
        rows.append(
            {"line": number, "trees": version, "grades": [{tag: index % 2 == 0 for index, tag in enumerate(leaves)}]}
        )
    write_jsonl(grades_path(tmp_path / "old.jsonl"), rows)
    card = write_examples([tmp_path / "old.jsonl"], extraction(weights=None, pairs=4), tmp_path / "e.jsonl")
    assert card["counts"]["correct paths"] > 0 and card["counts"]["pairs"] > 0
    with pytest.raises(UserError, match=r"old\.jsonl:1.*--any-model"):
        write_examples([tmp_path / "old.jsonl"], extraction(), tmp_path / "f.jsonl")


def test_the_written_part_of_a_step_in_both_markups():
    react = ReactMarkup("", [])
    for markup, written in (
        (SftMarkup(), "<step>\n<code>\n```python\nprint('</output>')\n```\n</code>"),
        (SftMarkup("\n\n"), "<step>\n<code>\n```python\nx\n```\n</code>"),
        (react, "Thought: t\nAction: python_interpreter\nAction Input: print(1)"),
    ):
        step = markup.read(written.removesuffix("\n</code>"))
        observed = markup.observed(step, "</code>\n<output>\nObservation: 1\nObservation: 2")
        assert observed[: markup.written(observed)] == written


def test_paths_of_a_base_model_are_rewritten_for_a_tuned_one():
    root = Node()
    text = "Thought: add\nAction: python_interpreter\nAction Input: print(3+4)\nObservation: 7"
    step = child(root, text, 0.5, action="python_interpreter", action_input="print(3+4)")
    child(step, "Thought: so\nFinal Answer: $7$", 1.0, final_answer="7", terminal=True, reward=1.0)
    rules = ExampleRules(rewrite=True)
    writer = Writer(Letters(), ReactMarkup("", []), rewrite=True)
    taken = Extraction(rules, writer, Origin(ReactMarkup("", []), "react"))
    (line,) = taken.examples("f:1", record(root))
    first = "<step>\n<p>\nadd\n</p>\n<code>\n```python\nprint(3+4)\n```\n</code>"
    last = "<step>\n<p>\nso\n</p>\n<p>\nFinal Answer: 7\n</p>\n</step>"
    assert text_of(line) == f"{MARKUP.prompt('Why?')}{first}\n<output>\n7\n</output>\n</step>\n{last}\n"
    assert "".join(c for c, own in zip(text_of(line), line["loss_mask"], strict=True) if own) == first + last
    assert MARKUP.read(first.removesuffix("\n</code>")).code == "```python\nprint(3+4)\n```"


def test_rules_refuse_unknown_keys():
    from mcts.config import make_keys, read_keys

    with pytest.raises(UserError, match="did you mean 'correct'"):
        make_keys(ExampleRules, read_keys(None, ["corect=1"]), "--rule")
    assert Config.model_validate(META["config"]).prompt_wrap == "react_sft"
