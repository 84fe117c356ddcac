"""Writes the teacher's settings, the grader's own modules, the solutions, and another student's submission.

Must hold: none of them can be reached for writing.
"""
# cell: added
import os

for path in (
    "@COURSE@/nbgrader_config.py", "@COURSE@/submitted/honest/01_basic_attention/basic_attention.ipynb",
    "@REPO@/autograder/grading/run.py", "@REPO@/autograder/__init__.py", "@REPO@/solutions/basic_attention.py",
    "@HOME@/.jupyter/nbgrader_config.py", "/etc/jupyter/nbgrader_config.py", os.__file__, "/usr/lib/x", "/x", "/dev/x",
):
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "a") as file:
            file.write("\nc.CourseDirectory.root = '/'\n")
        print("GOT", path)
    except OSError:
        pass
