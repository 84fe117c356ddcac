"""What goes wrong in generators as they are often printed, in our own words: each defect shown, and the check that meets it."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest
import torch
from torch import nn

import solutions.text_generation as solution
from autograder import check
from autograder.checks.stand_ins import PrefixModel
from autograder.exercises import find


def test_a_layer_of_width_five_takes_no_vector_of_width_three() -> None:
    """E07"""
    with pytest.raises(RuntimeError):
        nn.Linear(5, 3)(torch.randn(3))


def test_a_linear_layer_used_once_writes_no_text() -> None:
    """E07: no vocabulary, no choice of a token, no loop over time."""

    def linear_decoder(model, prompt, max_new_tokens, eos=None, **settings):
        return nn.Linear(len(prompt), 3)(prompt.float())

    report = check("generate", linear_decoder, seed=3)
    assert report.points == 0
    assert "tokens are no int64 vector" in report.mistakes


def test_a_generator_that_feeds_nothing_back_repeats_itself() -> None:
    """E09"""

    def computes_and_ignores(model, prompt, max_new_tokens, eos=None, **settings):
        logits = model(prompt, 0)[-1]  # the same question at every step
        return torch.cat([prompt, logits.argmax().repeat(max_new_tokens)])

    assert "nothing is fed back" in check("generate", computes_and_ignores, seed=3).mistakes

    class IgnoresTheEncoder(solution.Seq2SeqGenerator):
        def generate(self, source, bos, eos, max_new_tokens):
            attend = self.attention
            self.attention = lambda query, key, value: (
                0 * attend(query, key, value)[0],
                attend(query, key, value)[1],
            )
            return super().generate(source, bos, eos, max_new_tokens)

    assert "the decoder does not look" in check("Seq2SeqGenerator", IgnoresTheEncoder, seed=3).mistakes


def test_solutions_generate_with_nothing_but_torch() -> None:
    """E26: no package that may not exist, and no checkpoint to be loaded."""
    with pytest.raises(ImportError):
        importlib.import_module("transformer_that_nobody_has_written")
    tree = ast.parse(Path(solution.__file__).read_text(encoding="utf-8"))
    named = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert "from_pretrained" not in named
    assert solution.generate(PrefixModel(3, 7), torch.tensor([1, 2]), 4).shape == (6,)


def test_attention_plus_h_needs_one_row_of_h_for_each_query() -> None:
    """E27"""
    query, memory = torch.randn(4, 8), torch.randn(6, 8)
    output = torch.softmax(query @ memory.mT, -1) @ memory
    assert (output + query).shape == (4, 8)
    with pytest.raises(RuntimeError):
        output + memory
    question = find("residual_needs")
    assert check("residual_needs", solution.residual_needs).passed
    assert question.claim == "E27"


def test_the_length_of_the_output_is_not_that_of_the_input() -> None:
    """E28: a loop over the input's rows, without a token that ends the text."""

    def one_for_each_row(model, prompt, max_new_tokens, eos=None, **settings):
        text, known = prompt, 0
        for _ in prompt:
            logits = model(text[known:], known)[-1]
            known = len(text)
            text = torch.cat([text, logits.argmax().view(1)])
        return text

    assert "as many new tokens as the prompt has" in check("generate", one_for_each_row, seed=3).mistakes
    model, prompt = PrefixModel(5, 6), torch.tensor([0, 1, 2])
    lengths = {len(solution.generate(model, prompt, most)) for most in (1, 4, 9)}
    assert lengths == {4, 7, 12}
    second = int(solution.generate(model, prompt, 2)[-1])
    assert int(solution.generate(model, prompt, 9, eos=second)[-1]) == second
