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
    from arbor.methods import MCTS as MCTS
    from arbor.methods import Greedy as Greedy
    from arbor.methods import Method as Method
    from arbor.methods import Sampling as Sampling
    from arbor.methods import StepBeam as StepBeam
    from arbor.model import Model as Model
    from arbor.model import load_model as load_model
    from arbor.result import Cost as Cost
    from arbor.result import Result as Result
    from arbor.result import decide as decide
    from arbor.result import load as load
    from arbor.result import save as save
    from arbor.solver import Solver as Solver
    from eval.data.questions import read_questions as read_questions
    from eval.grading import Grade as Grade
    from eval.grading import Verdict as Verdict
    from eval.grading import grade as grade
    from mcts.errors import UserError as UserError
    from mcts.question import Question as Question
    from mcts.trees.node import Node as Node

__version__ = "0.2.0"

_HOMES = {
    "arbor.methods": ("MCTS", "Greedy", "Method", "Sampling", "StepBeam"),
    "arbor.model": ("Model", "load_model"),
    "arbor.result": ("Cost", "Result", "decide", "load", "save"),
    "arbor.solver": ("Solver",),
    "eval.data.questions": ("read_questions",),
    "eval.grading": ("Grade", "Verdict", "grade"),
    "mcts.errors": ("UserError",),
    "mcts.question": ("Question",),
    "mcts.trees.node": ("Node",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}
__all__ = sorted([*_HOME, "__version__"])


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'arbor' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
