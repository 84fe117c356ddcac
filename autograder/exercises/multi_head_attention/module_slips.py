"""The mistakes of `MultiHeadAttention` that a report can name."""

from __future__ import annotations

from functools import partial

from autograder.exercises.basic_attention.attention_slips import CAUSAL_SLIPS
from autograder.exercises.exercise import Mistake
from autograder.exercises.multi_head_attention.slips import HEAD_SLIPS, SHARED_SLIPS
from autograder.exercises.multi_head_attention.variants import linear, projected

__all__ = ["MODULE_MISTAKES"]

APPLIED = "The projection exists. Is it applied before the features are cut into heads?"
WHICH = "Which projection makes the keys, which the values?"

LEFT_OUT = {
    "divided by sqrt(D_v)",  # as wide as the key here
    # Whoever has written multi_head_attention is past these.
    "multiplied by sqrt(D)",
    "divided by D",
    "divided by 8",
    "exp without the division",
    "softmax applied twice",
    "sign turned round",
}

MODULE_MISTAKES = (
    *(
        Mistake(name, question, partial(projected, knobs=knobs))
        for name, question, knobs in HEAD_SLIPS + SHARED_SLIPS + CAUSAL_SLIPS
        if name not in LEFT_OUT
    ),
    Mistake("projections never applied", APPLIED, partial(projected, used=(False, False, False))),
    Mistake("queries not projected", APPLIED, partial(projected, used=(False, True, True))),
    Mistake("keys not projected", APPLIED, partial(projected, used=(True, False, True))),
    Mistake("values not projected", APPLIED, partial(projected, used=(True, True, False))),
    Mistake("keys made by v_proj", WHICH, partial(projected, names=("q_proj", "v_proj", "v_proj"))),
    Mistake("keys made by q_proj", WHICH, partial(projected, names=("q_proj", "q_proj", "v_proj"))),
    Mistake("values made by k_proj", WHICH, partial(projected, names=("q_proj", "k_proj", "k_proj"))),
    Mistake("keys and values exchanged", WHICH, partial(projected, names=("q_proj", "v_proj", "k_proj"))),
    Mistake(
        "queries and keys exchanged",
        "Which projection makes the queries, which the keys?",
        partial(projected, names=("k_proj", "q_proj", "v_proj")),
    ),
    Mistake(
        "projections applied transposed",
        "nn.Linear holds its weight as (out, in). Are the layers called?",
        partial(projected, turned=True),
    ),
    Mistake(
        "projections without their biases",
        "Are the layers called, or only their weights used?",
        partial(projected, bias=False),
    ),
    Mistake(
        "out_proj never applied",
        "Is out_proj applied to the merged heads?",
        partial(projected, finish=lambda output, query, w: output),
    ),
    Mistake(
        "out_proj applied without its bias",
        "Is the layer called, or only its weight used?",
        partial(projected, finish=lambda output, query, w: linear(output, w, "out_proj", bias=False)),
    ),
    Mistake(
        "query added to the output",
        "The residual connection belongs to the block around this module. Is the query added here?",
        partial(projected, finish=lambda output, query, w: linear(output, w, "out_proj") + query),
    ),
    Mistake(
        "key and value never used",
        "With a key given, keys and values come from it. Is it always the query that is projected?",
        partial(projected, sources=lambda q, k, v: (q, q, q)),
    ),
    Mistake(
        "value never used",
        "With a value given, the values come from it, not from key.",
        partial(projected, sources=lambda q, k, v: (q, q if k is None else k, q if k is None else k)),
    ),
    Mistake(
        "value never used where no key is given",
        "value alone may be given: key is then the query, and value stays what it is.",
        partial(
            projected,
            sources=lambda q, k, v: (q, q, q) if k is None else (q, k, k if v is None else v),
        ),
    ),
    Mistake(
        "values taken from the query where no value is given",
        "Without value, key is the value: look at what stands in for it when only key is given.",
        partial(
            projected,
            sources=lambda q, k, v: (q, q if k is None else k, q if v is None else v),
        ),
    ),
)
