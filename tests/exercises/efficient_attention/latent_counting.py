"""`latent_cache_elements`: right writings and mutants."""

from __future__ import annotations

import math

import torch

from tests.exercises.catalogue import mutant, right
from tests.exercises.shared_attention.lazy import register

NAME = "latent_cache_elements"


@right(NAME)
def in_one_product(batch, length, layers, d_latent, d_rope):
    return batch * length * layers * (d_latent + d_rope)


@right(NAME)
def layer_by_layer(batch, length, layers, d_latent, d_rope):
    return sum(batch * length * d_latent + batch * length * d_rope for _ in range(layers))


@right(NAME)
def by_the_shapes(batch, length, layers, d_latent, d_rope):
    shapes = ((layers, batch, length, d_latent), (layers, batch, length, d_rope))
    return sum(map(math.prod, shapes))


def miscount(name, named, formula):
    """A mutant from a formula of batch, length, layers, d_latent and d_rope."""

    def wrong(batch, length, layers, d_latent, d_rope):
        return formula(batch, length, layers, d_latent, d_rope)

    register(NAME, name, named, wrong)


miscount("a_float", "not a whole number", lambda b, n, m, c, r: b * n * m * (c + r) / 1)
miscount("a_word", "does not return what is asked for", lambda b, n, m, c, r: "b n l (c + r)")
miscount("at_least_one_rotated_number", None, lambda b, n, m, c, r: b * n * m * (c + max(r, 1)))
miscount("one_token_not_kept", None, lambda b, n, m, c, r: b * (n > 1) * n * m * (c + r))
miscount("by_a_float", "rounded on the way", lambda b, n, m, c, r: int(float(b) * n * m * (c + r)))
miscount("in_float32", "rounded on the way", lambda *sizes: int(torch.tensor(in_one_product(*sizes)).float()))


@mutant(NAME, "does not return what is asked for")
def prints_it(batch, length, layers, d_latent, d_rope):
    print(batch * length * layers * (d_latent + d_rope))
