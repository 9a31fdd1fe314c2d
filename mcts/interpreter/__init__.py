"""The code interpreter: one forked, sandboxed Python process per state."""

from mcts.interpreter.contract import Execution, Interpreter, InterpreterError, State
from mcts.interpreter.limits import Limits
from mcts.interpreter.manager import ForkInterpreter

__all__ = ["Execution", "ForkInterpreter", "Interpreter", "InterpreterError", "Limits", "State"]
