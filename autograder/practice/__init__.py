"""Practice outside the notebook."""

from autograder.practice.answers import Answers, AnswersError, answers

__all__ = ["Answers", "AnswersError", "answers"]
