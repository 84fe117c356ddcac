"""Practice outside the notebook."""

from .answers import Answers, AnswersError, answers

__all__ = ["Answers", "AnswersError", "answers"]
