"""Grading of answers. docs/grading.md describes it."""

from eval.grading.grader import Grade, Verdict, grade, grade_async

__all__ = ["Grade", "Verdict", "grade", "grade_async"]
