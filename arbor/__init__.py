"""Arbor: tree search for mathematical reasoning with a language model that is policy and value in one.

    import arbor

    model = arbor.load_model()
    with arbor.Solver(model, arbor.StepBeam(beam=3, samples=5)) as solver:
        result = solver.solve("A garden is 7 m longer than it is wide. Its area is 744 square metres. How wide is it?")
    print(result.answer, result.cost.tokens_computed)

Nothing heavy is imported before it is needed: no torch before a model is loaded, no sympy before an answer is graded.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from arbor.methods import MCTS, Greedy, Method, Sampling, StepBeam
    from arbor.model import Model, load_model
    from arbor.result import Cost, Result, decide, load, save
    from arbor.solver import Solver
    from eval.data.questions import read_questions
    from eval.grading import Grade, Verdict, grade
    from mcts.errors import UserError
    from mcts.question import Question
    from mcts.trees.node import Node

__version__ = "0.2.0"

_HOMES = {
    "MCTS": "arbor.methods",
    "Greedy": "arbor.methods",
    "Method": "arbor.methods",
    "Sampling": "arbor.methods",
    "StepBeam": "arbor.methods",
    "Model": "arbor.model",
    "load_model": "arbor.model",
    "Cost": "arbor.result",
    "Result": "arbor.result",
    "decide": "arbor.result",
    "load": "arbor.result",
    "save": "arbor.result",
    "Solver": "arbor.solver",
    "Grade": "eval.grading",
    "Verdict": "eval.grading",
    "grade": "eval.grading",
    "read_questions": "eval.data.questions",
    "Question": "mcts.question",
    "UserError": "mcts.errors",
    "Node": "mcts.trees.node",
}

__all__ = [
    "MCTS",
    "Cost",
    "Grade",
    "Greedy",
    "Method",
    "Model",
    "Node",
    "Question",
    "Result",
    "Sampling",
    "Solver",
    "StepBeam",
    "UserError",
    "Verdict",
    "__version__",
    "decide",
    "grade",
    "load",
    "load_model",
    "read_questions",
    "save",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'arbor' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
