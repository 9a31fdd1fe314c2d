import json
from random import Random

import pytest

from mcts.trees.node import Node
from mcts.trees.record import to_record
from models.tiny.chains import LENGTHS, TRAINING_LENGTHS
from models.tiny.demonstrations import demonstrate
from models.tiny.measure import main as command
from models.tiny.measure import measure
from models.tiny.problems import DATA, FAMILIES, SEEDS, generate, main, split_of, stream
from tests.conftest import write_jsonl


def test_same_seed_same_problems_other_seed_others():
    assert generate(5, 50) == generate(5, 50)
    assert not set(generate(5, 50)) & set(generate(6, 50))


def test_check_is_zero_exactly_at_the_answer():
    for problem in generate(17, 600, "train"):
        if problem.family == "shop":
            assert eval(problem.check) == problem.answer
            continue
        f = eval(f"lambda x: {problem.check}")
        zero = (0, 0) if problem.family == "remainders" else 0
        assert [x for x in range(1, problem.answer + 1) if f(x) == zero] == [problem.answer], problem


def test_check_is_negative_below_and_positive_above_the_answer():
    for problem in generate(18, 600, "train"):
        if problem.family in ("shop", "remainders"):
            continue
        f = eval(f"lambda x: {problem.check}")
        assert all(f(x) < 0 for x in range(1, problem.answer)), problem
        assert f(problem.answer + 1) > 0 or problem.family == "sum_product", problem


@pytest.mark.parametrize("seed", [3, 41])
def test_splits_share_no_question_and_no_equation(seed):
    train = generate(SEEDS["train"], 4000, "train")
    for split in ("dev", "test"):
        others = generate(seed, 400, split)
        assert not {p.question for p in train} & {p.question for p in others}
        assert not {(p.family, p.check) for p in train} & {(p.family, p.check) for p in others}
        assert all(split_of(p) == split for p in others)


def test_every_family_occurs_and_has_very_many_distinct_equations():
    problems = generate(7, 4000, "train")
    for family in FAMILIES:
        equations = [p.check for p in problems if p.family == family]
        assert len(equations) > 50
        assert len(set(equations)) > 0.85 * len(equations), family


@pytest.mark.parametrize("split", ["dev", "test"])
def test_shipped_sets_come_from_their_stated_seeds(split):
    path = DATA / {"dev": "dev.jsonl", "test": "heldout.jsonl"}[split]
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(rows) >= 500
    expected = generate(SEEDS[split], len(rows), split)
    assert rows == [{"question": p.question, "answer": str(p.answer), "family": p.family} for p in expected]


def test_no_demonstration_shows_a_heldout_question():
    heldout = {json.loads(line)["question"] for line in (DATA / "heldout.jsonl").read_text().splitlines()}
    rng = Random(0)
    prompts = [demonstrate(p, rng).prompt for p, _ in zip(stream(SEEDS["train"], "train"), range(2500), strict=False)]
    assert not any(prompt.removeprefix("<question> ").removesuffix(" </question>\n") in heldout for prompt in prompts)


def test_command_writes_rows_that_a_search_can_read(tmp_path):
    path = tmp_path / "fresh.jsonl"
    main(["--seed", "9", "--n", "30", "--output", str(path)])
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 30
    assert all(set(row) == {"question", "answer", "family"} and row["answer"].isdigit() for row in rows)


def test_command_refuses_a_count_below_one(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--n", "0", "--output", str(tmp_path / "x.jsonl")])
    assert stop.value.code == 2
    assert "at least 1" in capsys.readouterr().err


def test_demonstrations_are_weak_but_not_hopeless():
    rng = Random(3)
    problems = generate(4, 1500, "train")
    right = sum(demonstrate(p, rng).answer == p.answer for p in problems) / len(problems)
    assert 0.4 < right < 0.7


def test_a_chain_is_what_its_program_says_and_every_control_holds():
    for problem in generate(31, 300, "train", "chains"):
        modulus, state = problem.chain.modulus, {"s": problem.chain.start}
        for at, entry in enumerate(problem.chain.entries):
            wrong = {"s": state["s"]}
            exec(entry.misread, wrong)
            exec(entry.code, state)
            assert state["s"] % modulus == entry.control and entry.quoted(at) in problem.question
            assert entry.kind != "lost" or wrong["s"] % modulus != entry.control  # nothing else tells the sign
        assert state["s"] == problem.answer > 0


def test_chains_of_the_test_split_are_long_and_training_has_all_lengths():
    assert {len(p.chain.entries) for p in generate(5, 200, "test", "chains")} == set(LENGTHS)
    assert {len(p.chain.entries) for p in generate(5, 400, "train", "chains")} == set(TRAINING_LENGTHS)


def test_splits_share_no_chain_and_all_mixes_the_families():
    train = generate(SEEDS["train"], 2000, "train", "chains")
    test = generate(SEEDS["test"], 600, "test", "chains")
    assert not {p.check for p in train} & {p.check for p in test} and all(split_of(p) == "test" for p in test)
    assert 150 < sum(p.chain is not None for p in generate(3, 400, "test", "all")) < 250
    rows = [json.loads(line) for line in (DATA / "chains.jsonl").read_text(encoding="utf-8").splitlines()]
    assert rows == [{"question": p.question, "answer": str(p.answer), "family": p.family} for p in test]


def test_the_solver_of_chains_errs_often_and_never_recovers():
    rng, right = Random(3), 0
    for problem in generate(9, 200, "test", "chains"):
        solution = demonstrate(problem, rng)
        shown = [int(seen.split("\n")[2]) for _, seen in solution.steps[1:-2]]
        if solution.answer == problem.answer:
            right += 1
            assert shown == [0] * len(problem.chain.entries)
    assert 0 < right < 30


def test_success_recovery_and_rank_are_counted_on_trees(tmp_path):
    problem = generate(SEEDS["test"], 1, "test", "chains")[0]
    first, second, *_ = problem.chain.entries
    root = Node(extra_info=f"question: {problem.question}")

    def step(parent, tag, code, printed, value):
        text = f"<output>\n{printed}\n</output>"
        child = Node(f"{parent.tag}.{tag}", parent, parent.depth + 1, text, action_input=code, value=value)
        child.action = "python_interpreter"
        parent.children.append(child)
        return child

    start = step(root, 0, f"s={problem.chain.start}\nprint(s)", problem.chain.start, 0.0)
    good = step(start, 0, f"{first.code}\nprint(s)", 0, 0.5)
    bad = step(start, 1, first.misread, 1, -0.5)
    step(good, 0, second.code, 0, 0.1)
    step(good, 1, second.misread, 0, 0.2)  # a wrong step that does not show
    end = step(bad, 0, "", 0, 0.0)
    end.final_answer, end.terminal, end.action = "0", True, ""
    path = write_jsonl(
        tmp_path / "trees.jsonl", [{"question": problem.question, "react": to_record(root, searched=True)}]
    )
    facts = measure([path], {problem.question: problem})["all"]
    assert (facts["p"], facts["steps"], facts["wrong steps that show"]) == (0.5, 4, 0.5)
    assert (facts["sibling AUC"], facts["pairs"], facts["recovery"], facts["depth"]) == (0.5, 2, 0.0, 3.0)


def test_trees_that_are_not_there_are_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        command([str(tmp_path / "none.jsonl")])
    assert "none.jsonl: no such file" in capsys.readouterr().err.splitlines()[-1]
