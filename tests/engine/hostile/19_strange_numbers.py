"""Answers to a question with a number: nan, a float that lies about itself, and an integer of a thousand digits.

Must hold: nothing but the right finite number earns the point.
"""
# cell: added
class Number(float):
    __eq__ = __le__ = __ge__ = lambda self, other: True
    __sub__ = __rsub__ = lambda self, other: 0.0
    __abs__ = lambda self: 0.0
    __hash__ = float.__hash__
# cell: solution score_variance
score_variance = Number("nan")
# cell: plain score_variance
score_variance = float("nan")
# cell: solution attention_flops
attention_flops = 10**1000
# cell: plain attention_flops
attention_flops = 1
# cell: solution why_scale
why_scale = ["a", "b", "c", "d", "c"]
# cell: plain why_scale
why_scale = "nothing"
