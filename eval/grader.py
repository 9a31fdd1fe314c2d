"""The grader under its published name: python -m eval.grader --pairs FILE.jsonl [--policy P] [--json]."""

import sys

from eval.grading.grader import POLICIES, Grade, Verdict, grade, grade_async, main

__all__ = ["POLICIES", "Grade", "Verdict", "grade", "grade_async"]

if __name__ == "__main__":
    sys.exit(main())
