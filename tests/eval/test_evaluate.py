"""The evaluation command on trees and on ToRA-style files."""

import gzip
import json
from pathlib import Path

from eval.report.methods import by_data_set
from eval.report.rows import read_rows
from tests.conftest import run_here

ROOT = Path(__file__).parents[2]


def _evaluate(*arguments, cwd):
    return run_here(ROOT / "scripts" / "evaluate.py", *arguments, cwd=cwd)


def _tree(answer, value=0.5):
    node = {"text": "", "extra_info": "", "action": "", "action_input": "", "final_answer": "", "value": -100}
    return {"0": node, "0.0": {**node, "final_answer": answer, "value": value}}


def _percents(result, path):
    return {one["method"]: one["percent"] for one in result["files"][str(path)]["methods"]}


def test_runs_of_one_question_are_voted_on_and_cost_is_shared(tmp_path):
    rows = [
        {"question": "a", "answer": "1/2", "level": 1, "react": _tree("3"), "runs": [_tree("0.5"), _tree(r"\frac12")],
         "prediction": {"final_answer": "0.5"}, "meta": {"tokens_generated": 30}},
        {"question": "b", "answer": ["7"], "level": 2, "react": _tree("7", 0.9), "runs": [_tree("8"), _tree("9")],
         "prediction": None, "meta": {"tokens_generated": 60}},
    ]  # fmt: skip
    file = tmp_path / "trees.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = _evaluate(file, "--json", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout)
    percents = _percents(result, file)
    assert percents["prediction"] == 50  # no prediction is a wrong one
    assert percents["maj@1"] == 50
    assert percents["maj@3"] == 100  # 0.5 and 1/2 are one answer; three different ones fall to the first
    assert percents["best of n"] == 50
    assert percents["pass@3"] == 100
    costs = {one["method"]: one["cost_per_question"] for one in result["files"][str(file)]["methods"]}
    assert costs["maj@1"]["tokens_generated"] == 15
    assert costs["maj@3"]["tokens_generated"] == 45
    assert {key: one["percent"] for key, one in result["files"][str(file)]["by"]["level"].items()} == {"1": 100, "2": 0}


def test_costs_that_are_no_numbers_are_left_out(tmp_path):
    file = tmp_path / "trees.jsonl"
    row = {"question": "a", "answer": "1", "react": _tree("1"), "meta": {"tokens_generated": "many", "wall_seconds": 2}}
    file.write_text(json.dumps(row) + "\n")
    result = json.loads(_evaluate(file, "--json", cwd=tmp_path).stdout)
    assert result["files"][str(file)]["methods"][0]["cost_per_question"] == {"wall_seconds": 2}


def test_undecided_pairs_are_counted_apart_and_listed(tmp_path):
    file = tmp_path / "trees.jsonl"
    file.write_text(json.dumps({"question": "a", "answer": "ab", "react": _tree("ba")}) + "\n")
    result = json.loads(_evaluate(file, "--json", cwd=tmp_path).stdout)
    assert result["undecided"] == 1
    (entry,) = (json.loads(line) for line in (tmp_path / "undecided.jsonl").read_text().splitlines())
    assert (entry["gold"], entry["prediction"]) == (["ab"], "ba")


def test_published_trees_are_read(tmp_path, reference):
    for name in ("sbs_5_5", "mcts_sampling_False"):
        file = tmp_path / f"{name}.jsonl"
        file.write_bytes(gzip.decompress((reference / "golden" / f"{name}.trees.jsonl.gz").read_bytes()))
        run = _evaluate(file, cwd=tmp_path)
        assert run.returncode == 0, run.stderr
        assert "n = 16" in run.stdout


def test_tora_files_give_the_published_figure(tmp_path, reference):
    (file,) = reference.glob("tora/outputs/*/gsm8k/*.jsonl")
    result = json.loads(_evaluate(file, "--policy", "tora", "--json", cwd=tmp_path).stdout)
    assert round(_percents(result, file)["prediction"], 1) == 80.7


def test_zero_is_an_answer_and_rows_without_an_index_are_not_one_question(tmp_path):
    row = {"idx": None, "code": [""], "pred": [0], "gt": "0"}
    file = tmp_path / "gsm8k" / "test.jsonl"
    file.parent.mkdir()
    file.write_text(f"{json.dumps(row)}\n{json.dumps(row | {'pred': ['1']})}\n")
    rows = read_rows(file, "tora")
    assert [row.prediction for row in rows] == ["0", "1"]
    assert by_data_set({file: rows}) == {"gsm8k": rows}


def test_an_audit_that_cannot_be_written_is_found_before_the_grading(tmp_path):
    file = tmp_path / "trees.jsonl"
    file.write_text(json.dumps({"question": "a", "answer": "ab", "react": _tree("ba")}) + "\n")
    before = file.read_bytes()
    for audit, words in ((tmp_path / "none" / "a.jsonl", "No such file"), (tmp_path, "directory"), (file, "an input")):
        run = _evaluate(file, "--audit", audit, cwd=tmp_path)
        assert run.returncode == 2 and len(run.stderr.splitlines()) == 1, run.stderr
        assert words in run.stderr and str(audit) in run.stderr and not run.stdout
    assert file.read_bytes() == before and list(tmp_path.iterdir()) == [file]


def test_bad_files_are_refused_in_one_line(tmp_path):
    text = json.dumps({"code": ["\\boxed{12}"], "pred": "12", "gt": "12"})  # would be read letter by letter
    fewer = json.dumps({"code": ["a", "b"], "pred": ["12"], "gt": "12"})
    null = json.dumps({"answer": None, "react": _tree("None")})  # would be the word None
    bad = {"text.jsonl:2": "\nno json\n", "other.jsonl:1": '{"a": 1}\n', "list.jsonl:1": "[]\n", "empty.jsonl": "",
           "letters.jsonl:1": text, "fewer.jsonl:1": fewer, "null.jsonl:1": null}  # fmt: skip
    for where, content in bad.items():
        (tmp_path / where.partition(":")[0]).write_text(content)
        run = _evaluate(tmp_path / where.partition(":")[0], cwd=tmp_path)
        assert run.returncode == 2
        assert len(run.stderr.splitlines()) == 1 and where in run.stderr
