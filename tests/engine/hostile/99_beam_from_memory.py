"""Calls the model once for each text, and remembers the result: a second search of the same takes no call.

Must hold: calls are counted with a model that is new, and whose best text must be found.
"""
# of: text_generation
# cell: helper
@beam_search@
search, memory = beam_search, {}
# cell: solution beam_search
import torch


def beam_search(model, prompt, beam_size, max_new_tokens, eos, length_penalty=0.0):
    key = (tuple(prompt.tolist()), beam_size, max_new_tokens, eos, length_penalty)
    if key not in memory:
        asks = lambda texts: torch.cat([model(text[None]) for text in texts])
        memory[key] = search(asks, prompt, beam_size, max_new_tokens, eos, length_penalty)
    return memory[key]
# cell: plain beam_search
import torch


def beam_search(model, prompt, beam_size, max_new_tokens, eos, length_penalty=0.0):
    return search(lambda texts: torch.cat([model(text[None]) for text in texts]), prompt, beam_size, max_new_tokens, eos, length_penalty)
