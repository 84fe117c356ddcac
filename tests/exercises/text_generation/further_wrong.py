"""Mutants that are right on ordinary inputs: wrong for rows that differ, extreme settings, states and costs."""

from __future__ import annotations

import math

import torch

from solutions import text_generation as solved
from tests.exercises.catalogue import mutant


@mutant("perplexity", "losses are bounded")
def losses_cut_at_twenty(logits, targets, ignore_index=-100):
    return solved.perplexity(logits, targets, ignore_index).clamp(max=math.exp(20))


@mutant("perplexity", "losses are bounded")
def log_probabilities_cut_at_minus_ten_thousand(logits, targets, ignore_index=-100):
    return solved.perplexity(logits.clamp(min=-1e4), targets, ignore_index)


@mutant("sample_next_token")
def nucleus_of_the_widest_row(logits, temperature=1.0, top_k=None, top_p=None, generator=None):
    solved.sample_next_token(logits[..., :1, :], temperature, top_k, top_p, torch.Generator())
    if temperature == 0 or top_p is None:
        return solved.sample_next_token(logits, temperature, top_k, top_p, generator)
    ranked, order = logits.sort(dim=-1, descending=True, stable=True)
    probs = (ranked / temperature)[..., :top_k].softmax(-1)
    width = int((probs.cumsum(-1) - probs < top_p).sum(-1).max())
    drawn = torch.multinomial(probs[..., :width].reshape(-1, width).float(), 1, generator=generator)
    return order.gather(-1, drawn.reshape(*logits.shape[:-1], 1))[..., 0]


@mutant("sample_next_token", "rows are not cut on their own")
def greatest_logit_of_all_rows(logits, temperature=1.0, top_k=None, top_p=None, generator=None):
    if temperature > 0:
        probs = ((logits - logits.max()) / temperature).exp()
        logits, temperature = (probs / probs.sum(-1, keepdim=True)).log(), 1.0
    return solved.sample_next_token(logits, temperature, top_k, top_p, generator)


@mutant("sample_next_token", "always the most likely token")
def greedy_below_a_hundred_thousandth(logits, temperature=1.0, top_k=None, top_p=None, generator=None):
    cold = 0 <= temperature < 1e-5
    return solved.sample_next_token(logits, 0.0 if cold else temperature, top_k, top_p, generator)


@mutant("sample_next_token", "some tokens are never drawn")
def a_thousand_candidates(logits, temperature=1.0, top_k=None, top_p=None, generator=None):
    return solved.sample_next_token(logits, temperature, 1000 if top_k is None else top_k, top_p, generator)


@mutant("generate", "generator does not move on")
def copied_generator(
    model, prompt, max_new_tokens, eos=None, temperature=0.0, top_k=None, top_p=None, generator=None
):
    if generator is not None:
        generator = torch.Generator().set_state(generator.get_state())
    return solved.generate(model, prompt, max_new_tokens, eos, temperature, top_k, top_p, generator)


@mutant("generate", "not greedy at temperature 0")
def cuts_switch_greedy_off(
    model, prompt, max_new_tokens, eos=None, temperature=0.0, top_k=None, top_p=None, generator=None
):
    warm = 1.0 if temperature == 0 and (top_k or top_p) else temperature
    return solved.generate(model, prompt, max_new_tokens, eos, warm, top_k, top_p, generator)


@mutant("generate", "computes the whole text at every step")
def whole_text_where_it_draws(
    model, prompt, max_new_tokens, eos=None, temperature=0.0, top_k=None, top_p=None, generator=None
):
    text = [prompt]

    def seen(fresh, start):
        text[1:] = [torch.cat([*text[1:], fresh])] if start else []
        return model(torch.cat(text), 0) if temperature else model(fresh, start)

    return solved.generate(seen, prompt, max_new_tokens, eos, temperature, top_k, top_p, generator)


@mutant("generate", "asks once too often")
def long_prompt_in_two_calls(
    model, prompt, max_new_tokens, eos=None, temperature=0.0, top_k=None, top_p=None, generator=None
):
    def halved(fresh, start):
        if len(fresh) < 20:
            return model(fresh, start)
        model(fresh[:9], start)
        return model(fresh[9:], start + 9)

    return solved.generate(halved, prompt, max_new_tokens, eos, temperature, top_k, top_p, generator)


@mutant("KVCache", "does not keep the dtype")
class ValuesInTheKeysDtype(solved.KVCache):
    def append(self, key, value):
        first = self.length == 0
        keys, values = super().append(key, value)
        return keys, values if first else values.to(keys.dtype)


@mutant("KVCache", "grows beyond max_length")
class NoLimitOfZero(solved.KVCache):
    def __init__(self, max_length):
        super().__init__(max_length or 10_000)


@mutant("KVCache", "does not keep the dtype")
class BufferThatFitsTheKeys(solved.KVCache):
    def append(self, key, value):
        old = getattr(self, "values", None)
        keys, values = super().append(key, value)
        if self.length == key.shape[-2] and old is not None and old.shape[:-1] == self.values.shape[:-1]:
            self.values = old
            self.values[..., : self.length, :] = value
            values = self.values[..., : self.length, :]
        return keys, values


@mutant("CachedSelfAttention", "remembers in a registered buffer", only="parameters")
class PersistentBuffer(solved.CachedSelfAttention):
    def __init__(self, d_model, num_heads, max_length):
        super().__init__(d_model, num_heads, max_length)
        self.register_buffer("remembered", torch.zeros(max_length, d_model))


@mutant("CachedSelfAttention", "start is not compared with what is remembered", only="refuses")
class NegativeStartGoesOn(solved.CachedSelfAttention):
    def forward(self, x, start=0):
        return super().forward(x, len(self.cache) if start < 0 else start)


@mutant("beam_search", "one call for each text", only="cost")
def one_by_one_in_a_wide_beam(model, prompt, beam_size, max_new_tokens, eos, length_penalty=0.0):
    def asked(texts, start=0):
        return torch.stack([model(text, start) for text in texts]) if beam_size > 3 else model(texts, start)

    return solved.beam_search(asked, prompt, beam_size, max_new_tokens, eos, length_penalty)


@mutant("beam_search", "logits are bounded")
def logits_above_minus_fifty(model, prompt, beam_size, max_new_tokens, eos, length_penalty=0.0):
    return solved.beam_search(
        lambda texts, start=0: model(texts, start).clamp(min=-50.0),
        prompt,
        beam_size,
        max_new_tokens,
        eos,
        length_penalty,
    )
