"""The code interpreter: one forked, sandboxed Python process per state."""

from mcts.interpreter.contract import Execution, Interpreter, State
from mcts.interpreter.manager import ForkInterpreter, InterpreterError

__all__ = ["Execution", "ForkInterpreter", "Interpreter", "InterpreterError", "State"]
