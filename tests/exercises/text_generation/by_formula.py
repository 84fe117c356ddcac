"""`sample_next_token` and `Seq2SeqGenerator`: a mutant for each mistake that has a formula."""

from __future__ import annotations

from autograder.exercises.text_generation.sampling import SLIPS
from autograder.exercises.text_generation.translating import SEQ2SEQ_GENERATOR
from tests.exercises.catalogue import mutant
from tests.exercises.text_generation.sampling import drawn_from
from tests.exercises.text_generation.sampling import variant as sampling
from tests.exercises.text_generation.translating import Right

for _slips in SLIPS.values():
    for _name, _probabilities in _slips.items():
        sampling(_name.replace(" ", "_"), _name, drawn_from(_probabilities))


def made_of(formula):
    """A student's class that makes a mistake of the catalogue."""

    class Made(Right):
        def generate(self, source, bos, eos, max_new_tokens):
            found = formula(reader=self, source=source, bos=bos, eos=eos, max_new_tokens=max_new_tokens)
            return found["tokens"], found["attention_map"].float()

    return Made


for _mistake in SEQ2SEQ_GENERATOR.mistakes:
    _made = made_of(_mistake.formula)
    _made.__name__ = _mistake.name.replace(" ", "_")
    mutant("Seq2SeqGenerator", _mistake.name)(_made)
