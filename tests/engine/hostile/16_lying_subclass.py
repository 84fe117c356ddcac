"""Returns a tensor subclass that answers every comparison as it likes, with wrong numbers inside.

Must hold: a subclass is stripped on the way; its numbers are compared.
"""
# cell: solution dot_scores
import torch


class Liar(torch.Tensor):
    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func.__name__ in ("allclose", "equal", "isclose", "eq", "__eq__", "sub", "__sub__"):
            return True
        return super().__torch_function__(func, types, args, kwargs or {})

    shape = property(lambda self: torch.Size([2, 2]))
    requires_grad = property(lambda self: True)


def dot_scores(query, key):
    return torch.zeros(*query.shape[:-1], key.shape[-2]).as_subclass(Liar)
# cell: plain dot_scores
import torch


def dot_scores(query, key):
    return torch.zeros(*query.shape[:-1], key.shape[-2])
