"""Methods whose results are huge, generators, endless, nested, of other types each time; a text of millions; numbers without end.

Must hold: each is one wrong result; the report on it is short.
"""
# of: text_generation
# cell: helper
import torch
# cell: solution KVCache
class KVCache:
    def __init__(self, max_length):
        self.results = [
            lambda k, v: (x for x in (k, v)), lambda k, v: (k.expand(500, *k.shape), v), lambda k, v: [[[[[[k]]]]]] * 50,
            lambda k, v: (torch.zeros(900, 1000), torch.zeros(900, 1000)), lambda k, v: {"keys": k, "values": v},
            lambda k, v: (self, self), lambda k, v: "x" * 10**6, lambda k, v: (10**400, float("nan")), lambda k, v: (k, v) * 5_000,
        ]

    def __len__(self):
        return len(self.results)

    def append(self, key, value):
        self.results.append(self.results.pop(0))
        return self.results[0](key, value)
# cell: plain KVCache
class KVCache:
    def __init__(self, max_length):
        pass

    def append(self, key, value):
        raise ValueError
# cell: solution generate
def generate(model, prompt, *args, **kwargs):
    return torch.zeros(1_000_000, dtype=torch.int64)
# cell: plain generate
def generate(model, prompt, *args, **kwargs):
    raise ValueError
# cell: solution Seq2SeqGenerator
class Seq2SeqGenerator:
    def __init__(self, *parts):
        self.tokens = 0

    def generate(self, source, *rest):
        self.tokens += 1
        return torch.zeros(1_000, dtype=torch.int64), torch.zeros(1_000, 900)
# cell: plain Seq2SeqGenerator
class Seq2SeqGenerator:
    def __init__(self, *parts):
        raise ValueError
# cell: solution beam_search
def beam_search(*args):
    return torch.zeros(900_000, dtype=torch.int64), torch.zeros(0, 10**9)
# cell: plain beam_search
def beam_search(*args):
    raise ValueError
