"""`python -m eval.grader --pairs FILE` and the documented imports; the code is in eval/grading."""

import sys

from eval.grading.grader import POLICIES, Grade, Verdict, grade, grade_async, main

__all__ = ["POLICIES", "Grade", "Verdict", "grade", "grade_async"]

if __name__ == "__main__":
    sys.exit(main())
