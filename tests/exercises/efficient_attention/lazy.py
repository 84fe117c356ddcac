"""No attempt at all: what is handed in for an exercise with one tensor in the hope of points."""

from __future__ import annotations

import torch

from tests.exercises.catalogue import mutant

__all__ = ["one_tensor", "register", "without_a_tensor"]


def register(exercise, name, named, obj, only=None):
    """A mutant under a name of its own."""
    obj.__name__ = name
    mutant(exercise, named, only=only)(obj)


def one_tensor(exercise, blank, unmoved, only="every input counts"):
    """Register results that nobody has computed. blank: arguments -> zeros of the right shape; unmoved: what they are told."""
    without_a_tensor(exercise, blank)
    register(exercise, "zeros", unmoved, lambda *a: blank(*a), only)
    register(exercise, "not_a_number", "nan or inf for ordinary inputs", lambda *a: blank(*a) / 0.0)
    register(exercise, "random", "another result at every call", lambda *a: torch.rand_like(blank(*a)))


def without_a_tensor(exercise, blank):
    """Register results that are no tensor."""
    asked = "does not return what is asked for"
    register(exercise, "nothing", asked, lambda *a: None)
    register(exercise, "a_list", asked, lambda *a: blank(*a).tolist())
    register(exercise, "a_number", asked, lambda *a: 0.5)
    register(exercise, "two_results", asked, lambda *a: (blank(*a), blank(*a)))
    register(exercise, "an_array", asked, lambda *a: blank(*a).numpy())
