"""Grading of answers: whether a prediction is the gold answer, and the golds that a data set states."""

from eval.grading.gold import read_gold
from eval.grading.grader import grade, grade_async
from eval.grading.verdict import Grade, Verdict

__all__ = ["Grade", "Verdict", "grade", "grade_async", "read_gold"]
