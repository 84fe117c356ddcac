"""Reads the key of the multiple-choice questions from the autograder's own package, and answers with it.

Must hold: no copy of it can be imported or opened here.
"""
# cell: added
import importlib
import importlib.util
import os
import sys

for name in [name for name in sys.modules if name.startswith("autograder")]:
    del sys.modules[name]
sys.path[:0] = ["@REPO@"]
found = {}
try:
    questions = importlib.import_module("autograder.exercises.basic_attention.questions").QUESTIONS
    found = {question.name: question.answer for question in questions}
    print("GOT", found)
except ImportError:
    pass
for folder in sys.path:
    path = os.path.join(folder, "autograder", "exercises", "basic_attention", "questions.py")
    try:
        print("GOT", open(path).read()[:50])
    except OSError:
        pass
# cell: solution why_scale
why_scale = found.get("why_scale", "nothing")
# cell: plain why_scale
why_scale = "nothing"
# cell: solution score_variance
score_variance = found.get("score_variance", "nothing")
# cell: plain score_variance
score_variance = "nothing"
