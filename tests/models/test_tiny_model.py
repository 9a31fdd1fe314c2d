import json
import random
from pathlib import Path

import pytest
from safetensors.torch import load_file
from transformers import AutoTokenizer

from mcts.interpreter import ForkInterpreter
from mcts.markup import SftMarkup
from mcts.question import Question
from mcts.search.driver import Solver, solve_all
from models.engines.config import load_config
from models.engines.transformers.engine import TransformersModel
from models.tiny.demonstrations import demonstrate
from models.tiny.prepare import demonstration_example
from models.tiny.problems import Problem, generate
from models.tiny.tokenizer import GROUPS

TINY = Path(__file__).parents[2] / "models" / "tiny"
WEIGHTS = TINY / "weights"


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(WEIGHTS)


def solutions(n):
    rng = random.Random(5)
    return [demonstrate(problem, rng) for problem in generate(12, n, "train", "all")]


def test_tokenizer_loses_no_text(tokenizer):
    rng = random.Random(0)
    texts = [
        "naïve  日本語 🙂\t\n\n x^{2} don't , . ",
        "\x00\u200d <step> </step>\n",
        *(
            "".join(chr(rng.choice((rng.randrange(32, 127), rng.randrange(0xA0, 0xD7FF)))) for _ in range(60))
            for _ in range(50)
        ),
    ]
    for text in texts:
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_markup_groups_and_digits_are_single_tokens(tokenizer):
    assert all(len(tokenizer.encode(group, add_special_tokens=False)) == 1 for group in GROUPS)
    assert len(tokenizer.encode("8675309", add_special_tokens=False)) == 7


def test_questions_and_steps_are_short(tokenizer):
    pieces = [(solution.prompt, solution.steps) for solution in solutions(200)]
    question = sum(len(tokenizer.encode(prompt)) for prompt, _ in pieces) / len(pieces)
    steps = [len(tokenizer.encode(a)) + len(tokenizer.encode(b)) for _, steps in pieces for a, b in steps]
    assert question < 55
    assert sum(steps) / len(steps) < 25


def test_engine_encodes_the_pieces_of_a_path_as_training_did(tokenizer):
    engine = TransformersModel.load(WEIGHTS)
    for solution in solutions(20):
        ids = list(engine.encode_prompt(solution.prompt))
        for written, observed in solution.steps:
            ids += engine.encode(written) + engine.encode(observed)
        assert ids == demonstration_example(tokenizer, solution)["token_ids"]


def test_demonstrations_follow_the_markup_of_the_search():
    markup = SftMarkup()
    for solution in solutions(100):
        for written, observed in solution.steps[:-1]:
            step = markup.read(written.removesuffix("\n</code>"))
            assert step.code
            observation = observed.removeprefix("\n<output>\n").removesuffix("\n</output>\n</step>\n")
            assert markup.observed(step, observation) + "\n" == written + observed
        written, observed = solution.steps[-1]
        step = markup.read(written.removesuffix("</step>"))
        assert step.final_answer == str(solution.answer)
        assert step.text + "\n" == written + observed


async def test_demonstrations_show_what_the_interpreter_prints():
    markup = SftMarkup()
    async with ForkInterpreter() as interpreter:
        for solution in solutions(12):
            state = None
            for written, observed in solution.steps[:-1]:
                result = await interpreter.run(state, markup.read(written.removesuffix("\n</code>")).code)
                state = result.state
                assert observed == f"\n<output>\n{result.observation}\n</output>\n</step>\n"


def test_shipped_model_is_small_and_marked_as_a_value_model():
    config = json.loads((WEIGHTS / "config.json").read_text())
    assert config["value_model"] is True
    head = load_file(WEIGHTS / "value_head.safetensors")
    assert head["v_head.summary.weight"].shape == (1, config["hidden_size"])
    assert head["v_head.summary.bias"].shape == (1,)
    assert sum(path.stat().st_size for path in TINY.rglob("*") if path.is_file()) < 25e6
    parameters = sum(tensor.numel() for tensor in load_file(WEIGHTS / "model.safetensors").values())
    assert 0.5e6 < parameters < 2e6


async def accuracy(name: str, model: TransformersModel, interpreter: ForkInterpreter, problems: list[Problem]) -> int:
    config = load_config(TINY.parents[1] / "configs" / "tiny" / f"{name}.yaml")
    solver = Solver(config, model, SftMarkup(), interpreter)
    questions = [Question(i, {"question": problem.question}, "") for i, problem in enumerate(problems)]
    records = [(question.index, record) async for question, record in solve_all(solver, questions, 64)]
    return sum((record["prediction"] or {}).get("final_answer") == str(problems[i].answer) for i, record in records)


@pytest.mark.parametrize(("family", "more"), [("guess", 1), ("chains", 4)])
async def test_search_pays_on_fresh_problems(family, more):
    model, problems = TransformersModel.load(WEIGHTS), generate(77, 24, "test", family)
    async with ForkInterpreter() as interpreter:
        greedy = await accuracy("greedy", model, interpreter, problems)
        beam = await accuracy("sbs_3_5", model, interpreter, problems)
    assert beam >= greedy + more
