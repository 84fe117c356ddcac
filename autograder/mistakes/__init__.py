"""Mistakes: what goes wrong with a formula, as tables of exchanged steps; what several assignments share stands here."""

from autograder.mistakes.mistake import Mistake, Slips, Step, slips

__all__ = ["Mistake", "Slips", "Step", "slips"]
