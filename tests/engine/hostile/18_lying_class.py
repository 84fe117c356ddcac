"""An object whose __class__ says Tensor, one whose type is called Tensor, and a str that strips itself to the answer.

Must hold: isinstance may be fooled in the worker; the judge receives plain values or nothing.
"""
# cell: added
import torch


class Tensor:
    __class__ = property(lambda self: torch.Tensor)
    requires_grad, shape, dtype, layout = True, torch.Size([1]), torch.float32, torch.strided

    def __getattr__(self, name):
        return lambda *args, **kwargs: self


class Letter(str):
    def strip(self, *args):
        return self

    def lower(self):
        return self

    def __eq__(self, other):
        return True

    def __hash__(self):
        return hash("c")
# cell: solution dot_scores
def dot_scores(query, key):
    return Tensor()
# cell: plain dot_scores
def dot_scores(query, key):
    return None
# cell: solution why_scale
why_scale = Letter("d")
# cell: plain why_scale
why_scale = "d"
