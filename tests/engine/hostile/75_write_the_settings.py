"""Writes the teacher's settings, the grader's own modules, the solutions, and another student's submission.

Must hold: none of them can be reached for writing. (A folder of the same name in its own scratch space is nobody's.)
"""
# cell: added
import os

for path in (
    "@COURSE@/nbgrader_config.py", "@COURSE@/submitted/honest/01_basic_attention/basic_attention.ipynb",
    "@REPO@/autograder/grading/run.py", "@REPO@/autograder/__init__.py", "@REPO@/solutions/basic_attention.py",
    os.__file__,
):
    try:
        with open(path, "r+") as file:
            file.write("\nc.CourseDirectory.root = '/'\n")
        print("GOT", path)
    except OSError:
        pass
for path in ("@HOME@/.jupyter/nbgrader_config.py", "/etc/jupyter/nbgrader_config.py", "/usr/lib/x", "/x", "/dev/x"):
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "a") as file:
            file.write("\nc.CourseDirectory.root = '/'\n")
        if not os.path.realpath(path).startswith("/scratch/"):
            print("GOT", path)
    except OSError:
        pass
