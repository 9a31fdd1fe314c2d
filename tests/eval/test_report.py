"""Reports and figures of tree files: what they say, and that no text of a model becomes more than a text."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from arbor.commands.plot import command as plot
from arbor.commands.report import write_report
from eval.report.figures import FIGURES, accuracy_points, calibration, cost, rounds, sibling_ranking
from eval.report.html import as_html, as_markdown, report_blocks
from mcts.errors import UserError
from tests.arbor.pages import EVIL, hostile, node, plain, searched, simulated, write

PNG = b"\x89PNG\r\n\x1a\n"


class Parsed(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def trees(tmp_path: Path) -> Path:
    records = [
        plain("Q0", "1", "1", type="algebra"),
        plain("Q1", "1", "2", type="algebra"),
        plain("Q2", "1", None, type="x"),
    ]
    return write(tmp_path / "trees.jsonl", *records)


def test_a_report_says_accuracy_groups_failures_and_where_the_trees_are(trees: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert write_report([trees], tmp_path / "report") == tmp_path / "report" / "report.html"
    page = Parsed((tmp_path / "report" / "report.html").read_text())
    assert "33.33" in page.text and "too deep" in page.text and "algebra" in page.text and "50.00" in page.text
    links = [tag["href"] for name, tag in page.tags if name == "a"]
    assert links == ["trees.html#q=1", "trees.html#q=2"] and (tmp_path / "report" / "trees.html").is_file()
    images = [str(tag["src"]).removeprefix("data:image/png;base64,") for name, tag in page.tags if name == "img"]
    assert images and all(base64.b64decode(one).startswith(PNG) for one in images)
    text = (tmp_path / "report" / "report.md").read_text()
    named = re.findall(r"!\[.*?\]\((.*?)\)", text)
    assert len(named) == len(images) and all((tmp_path / "report" / one).read_bytes().startswith(PNG) for one in named)
    assert "[2](trees.html#q=1)" in text


def test_hostile_texts_stay_texts_in_a_report(tmp_path: Path) -> None:
    record = {
        **hostile(),
        "answer": "**not** that | <b>\n# x",
        "level": EVIL,
        "meta": {"no_answer": EVIL, "config": {EVIL: EVIL}},
    }
    blocks = report_blocks([write(tmp_path / "t.jsonl", record)], lambda path, place: "", figures=False)
    page = Parsed(as_html(EVIL, blocks))
    own = "html head meta title style body h1 h2 p table thead tbody tr th td bdi"
    assert {name for name, _ in page.tags} == set(own.split())
    assert "<script>window.pwned=1</script>" in page.text and "U+202E" in page.text and "\u202e" not in page.text
    assert not any(name.startswith("on") for _, tag in page.tags for name in tag)
    for line in as_markdown(EVIL, blocks, "f").splitlines():
        assert "<" not in line.replace("\\<", "")
        assert line.startswith(("#", "|", "")) and (not line.startswith("|") or line.endswith(" |"))


def test_accuracy_is_drawn_where_tokens_and_verdicts_are_known(trees: Path, tmp_path: Path) -> None:
    (point,) = accuracy_points([trees])["points"]
    assert (point["n"], point["tokens"]) == (3, 10) and point["accuracy"] == pytest.approx(100 / 3)
    record = {"question": "Q", "react": {"0": node(), "0.0": node("a", final_answer="1")}}
    ungraded = write(tmp_path / "u.jsonl", record)
    with pytest.raises(UserError, match="no graded prediction"):
        accuracy_points([ungraded])


def test_calibration_counts_answers_by_their_value(tmp_path: Path) -> None:
    tree = {"0": searched()}
    for child, (value, reward) in enumerate([(0.95, 1.0), (0.95, 1.0), (0.95, -1.0), (-0.95, -1.0), (0.3, None)]):
        tree[f"0.{child}"] = searched("a", q=value, final_answer=str(child), terminal=True, reward=reward)
    found = calibration([write(tmp_path / "t.jsonl", {"question": "Q", "react": tree})])
    assert [(one["n"], round(one["right"], 1)) for one in found["levels"]] == [(1, 0.0), (3, 66.7)]
    assert found["error"] == pytest.approx((1 * 0.025 + 3 * (0.975 - 2 / 3)) / 4)


def test_siblings_are_ranked_by_the_values_in_the_tree(tmp_path: Path) -> None:
    tree = {
        "0": searched(),
        "0.0": searched("good", q=0.1, n=2),
        "0.1": searched("bad", q=0.5, n=2),
        "0.0.0": searched("a", q=0.9, final_answer="1", reward=1.0),
        "0.0.1": searched("a", q=0.2, final_answer="2", reward=-1.0),
        "0.1.0": searched("a", q=0.2, final_answer="3", reward=-1.0),
    }
    found = sibling_ranking([write(tmp_path / "t.jsonl", {"question": "Q", "react": tree})])["t"]
    assert found == {"final answers": {"auc": 1.0, "pairs": 1}, "inner steps": {"auc": 0.0, "pairs": 1}}


def test_cost_is_split_into_what_is_recorded(tmp_path: Path) -> None:
    meta = {"tokens_generated": 30, "tokens_computed": 50, "tokens_reused": 9, "wall_seconds": 2.0, "code_seconds": 0.5}
    record = plain("Q", "1", "1") | {"meta": meta}
    found = cost([write(tmp_path / "t.jsonl", record)])["t"]
    assert found["tokens"] == {"decode": 30, "prefill": 20, "reused": 9}
    assert found["seconds"] == {"code": 0.5, "host and waiting": 1.5}
    meta |= {"prefill_seconds": 0.25, "decode_seconds": 0.5, "grading_seconds": 0.25}
    found = cost([write(tmp_path / "u.jsonl", record | {"meta": meta})])["u"]
    assert found["seconds"] == {"code": 0.5, "prefill": 0.25, "decode": 0.5, "grading": 0.25, "host and waiting": 0.5}


def test_rounds_are_read_from_their_report(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text('[{"round": "1", "method": "sbs", "right": {"0": true, "1": false}}]')
    (row,) = rounds([tmp_path])[tmp_path.name]
    assert (row["round"], row["n"], row["accuracy"]) == ("1", 2, 50)
    (tmp_path / "report.json").write_text("[3]")
    with pytest.raises(UserError, match="not the report of rounds"):
        rounds([tmp_path])


def test_every_figure_is_drawn_and_leaves_its_numbers(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    searched_file = write(tmp_path / "mcts.jsonl", simulated() | {"meta": {
        "tokens_generated": 4, "tokens_computed": 9, "tokens_reused": 1, "wall_seconds": 1.0}})  # fmt: skip
    record = simulated()
    record["react"]["0.0.0"]["reward"], record["react"]["0.0.1"]["reward"] = 1.0, -1.0
    sampled = write(tmp_path / "sampled.jsonl", record)
    folder = tmp_path / "rounds"
    folder.mkdir()
    (folder / "report.json").write_text('[{"round": "1", "method": "sbs", "right": {"0": true}}]')
    plot.main([str(searched_file), str(sampled), str(folder), "--output", str(tmp_path / "png")], standalone_mode=False)
    names = {path.name for path in (tmp_path / "png").iterdir()}
    assert names == {f"{name}.{end}" for name in FIGURES for end in ("png", "json")}
    with pytest.raises(UserError, match="expected trees of MCTS with is_sampling"):
        plot.main([str(searched_file), "--only", "siblings", "--output", str(tmp_path)], standalone_mode=False)
