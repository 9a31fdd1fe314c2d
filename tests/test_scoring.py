"""Values of whole trees in one pass: the engine's own values, reranking, the ranking of siblings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from arbor.commands import rank_siblings, rerank
from eval.report.siblings import pairs, truths
from mcts.errors import UserError
from mcts.model import Context
from mcts.trees.node import Node, walk
from mcts.trees.record import to_record
from models.engines.transformers.engine import TransformersModel
from models.training.score import Scorer
from tests.conftest import run_here, write_jsonl

ROOT = Path(__file__).resolve().parents[1]


def grown(tag: str, parent: Node | None, ids: tuple[int, ...], answer: str = "", reward: float | None = None) -> Node:
    node = Node(tag, parent, tag.count("."), token_ids=ids, final_answer=answer, terminal=bool(answer), reward=reward)
    if parent is not None:
        parent.children.append(node)
    return node


def two_trees() -> list[Node]:
    roots = []
    for run in range(2):
        root = grown("0", None, (5, 6, 7))
        first = grown("0.0", root, (8, 9))
        grown("0.1", root, (8, 40 + run), "2", -1.0)
        grown("0.0.0", first, (11, 12, 13), "1", 1.0)
        grown("0.0.1", first, (11, 30), "3", -1.0)
        roots.append(root)
    return roots


async def test_scores_are_the_values_of_the_engine(model_folder: Path) -> None:
    engine, roots = TransformersModel.load(model_folder), two_trees()
    for root, values in zip(roots, Scorer(model_folder).values(roots), strict=True):
        assert values.keys() == {node.tag for node in walk(root)}
        for node in walk(root):
            ids = [token for one in (root, *node.path()) for token in one.token_ids]
            assert values[node.tag] == pytest.approx(await engine.evaluate(Context(None, tuple(ids))), abs=1e-5)


@pytest.mark.parametrize("row_tokens", [1, 7, 10])
def test_scores_do_not_depend_on_how_paths_are_put_into_rows(model_folder: Path, row_tokens: int) -> None:
    roots, whole, scorer = two_trees(), Scorer(model_folder), Scorer(model_folder, row_tokens=row_tokens)
    assert len(list(scorer._rows(roots))) > len(list(whole._rows(roots))) == 1
    for ours, theirs in zip(scorer.values(roots), whole.values(roots), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)


def test_reranking_takes_the_answer_with_the_highest_value(model_folder: Path, tmp_path: Path) -> None:
    roots = two_trees()
    react, *runs = [to_record(root, searched=False) for root in roots]
    write_jsonl(tmp_path / "t.jsonl", [{"question": "q", "answer": "1", "react": react, "runs": runs, "meta": {}}])
    command = ["scripts/rerank.py", "--trees", str(tmp_path / "t.jsonl"), "--model", str(model_folder)]
    output = tmp_path / "out.jsonl"
    done = run_here(*command, "--output", output)
    assert done.returncode == 0, done.stderr
    record = json.loads(output.read_text())
    scores = [
        (values[node.tag], node.final_answer, node.tag)
        for root, values in zip(roots, Scorer(model_folder).values(roots), strict=True)
        for node in walk(root)
        if node.answered
    ]
    best = max(scores)
    assert record["prediction"]["final_answer"] == best[1] and record["prediction"]["tag"] == best[2]
    assert record["prediction"]["correct"] is (best[1] == "1") and record["prediction"]["candidates"] == 6
    assert record["react"]["0.0.0"]["value"] == pytest.approx(Scorer(model_folder).values(roots)[0]["0.0.0"], abs=1e-6)
    again = run_here(*command, "--output", output)
    assert again.returncode == 2 and "exists already" in again.stderr


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tree: tree.pop("0.0"), "parent '0.0'"),
        (lambda tree: tree["0.1"].update(token_ids=[10**6]), "vocabulary"),
        (lambda tree: tree["0"].update(token_ids=[]), "no token ids"),
    ],
)
def test_trees_that_cannot_be_valued_are_named(model_folder: Path, tmp_path: Path, change, words: str) -> None:
    good, broken = ([to_record(root, searched=False) for root in two_trees()] for _ in range(2))
    change(broken[1])
    lines = [{"question": "q", "answer": "1", "react": one[0], "runs": one[1:]} for one in (good, broken)]
    trees = str(write_jsonl(tmp_path / "t.jsonl", lines))
    for script, more in ((rerank, ["--output", str(tmp_path / "o.jsonl")]), (rank_siblings, [])):
        line = ["--trees", trees, "--model", str(model_folder), *more]
        with pytest.raises(UserError, match=rf"t\.jsonl:2: .*{words}"):
            script.command.main(line, standalone_mode=False)


def test_a_result_that_cannot_be_written_is_found_before_the_scoring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trees = write_jsonl(tmp_path / "t.jsonl", [])
    monkeypatch.setattr("models.training.score.Scorer", None)
    for path, words in ((tmp_path / "none" / "r.json", "cannot be written"), (trees, "an input")):
        line = ["--trees", str(trees), "--model", "m", "--json", str(path)]
        with pytest.raises(UserError, match=words):
            rank_siblings.command.main(line, standalone_mode=False)


def test_siblings_are_ranked_by_what_was_found_below_them() -> None:
    root, _ = two_trees()
    assert truths(root) == {"0.0.1": -1, "0.0.0": 1, "0.1": -1, "0.0": 0, "0": pytest.approx(-1 / 3)}
    right = dict.fromkeys(truths(root), 0.0) | {"0.0": 0.5, "0.0.0": 0.9}
    assert sorted(pairs(root, right)) == [("final answers", 1.0), ("inner steps", 1.0)]
    wrong = dict.fromkeys(truths(root), 0.0) | {"0.1": 0.5}
    assert sorted(pairs(root, wrong)) == [("final answers", 0.5), ("inner steps", 0.0)]


def test_trees_without_rewards_rank_nothing_and_say_so(model_folder: Path, tmp_path: Path) -> None:
    record = to_record(two_trees()[0], searched=False)
    for node in record.values():
        node.pop("reward", None)
    trees = write_jsonl(tmp_path / "t.jsonl", [{"question": "q", "answer": "1", "react": record}])
    with pytest.raises(UserError, match="is_sampling: true"):
        rank_siblings.command.main(["--trees", str(trees), "--model", str(model_folder)], standalone_mode=False)
