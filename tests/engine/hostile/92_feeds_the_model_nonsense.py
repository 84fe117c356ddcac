"""Calls the model with tokens below 0 and beyond the vocabulary, floats, nan, words, nested lists, too few and too many arguments.

What comes back as errors must not tell of files, addresses or lines of the judge's.
Must hold: each is refused as a real model would, in words of the model's own; nothing of the judge's is in them.
"""
# of: text_generation
# cell: helper
@sample_next_token@
@generate@
honest, said = generate, set()
# cell: solution generate
import torch


def generate(model, prompt, *args, **kwargs):
    nonsense = [
        prompt - 50, prompt + 50, prompt * 2**40, prompt.float(), prompt * float("nan"), prompt.bool(), prompt.to_sparse(),
        prompt.to(torch.complex64), prompt.numpy(), float("nan"), 2**200, "tokens", [[[[[[1]]]]]], [1] * 300, {"tokens": prompt},
        None, ..., torch.int64, model, object(), prompt.expand(3, -1), prompt[:0], type("T", (torch.Tensor,), {})(),
    ]
    for tokens in nonsense:
        for named in ({}, {"start": None}, {"start": "x"}, {"start": -(2**62)}, {"self": 1}, {"function": 1}, {"args": 1}):
            try:
                model(tokens, **named)
            except Exception as error:
                said.add(f"{type(error).__name__}: {error}")
    for wrong in ((), (1, 2, 3), (prompt,) * 200):
        try:
            model(*wrong)
        except Exception as error:
            said.add(f"{type(error).__name__}: {error}")
    return honest(model, prompt, *args, **kwargs)
# cell: plain generate
@generate@
# cell: solution beam_search
print(*(f"GOT {one}" for one in said if "/" in one or "0x" in one or "line " in one or ".py" in one or len(one) > 350))


def beam_search(*args):
    raise ValueError
# cell: plain beam_search
def beam_search(*args):
    raise ValueError
