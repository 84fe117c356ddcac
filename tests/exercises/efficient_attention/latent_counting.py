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


def miscount(name, named, formula, only=None):
    """A mutant from a formula of batch, length, layers, d_latent and d_rope."""

    def wrong(batch, length, layers, d_latent, d_rope):
        return formula(batch, length, layers, d_latent, d_rope)

    register(NAME, name, named, wrong, only)


miscount("latent_twice", "latent counted twice", lambda b, n, m, c, r: b * n * m * (2 * c + r))
miscount("rotated_alone", "latent not counted", lambda b, n, m, c, r: b * n * m * r)
miscount("widths_multiplied", "widths multiplied", lambda b, n, m, c, r: b * n * m * c * r)
miscount("no_batch", "batch left out", lambda b, n, m, c, r: n * m * (c + r))
miscount("no_length", "length left out", lambda b, n, m, c, r: b * m * (c + r))
miscount("no_layers", "layers left out", lambda b, n, m, c, r: b * n * (c + r))
miscount("squared", "length squared", lambda b, n, m, c, r: b * n * n * m * (c + r))
miscount("nothing_counted", "nothing counted", lambda b, n, m, c, r: 0)
miscount("a_float", "not a whole number", lambda b, n, m, c, r: b * n * m * (c + r) / 1)
miscount(
    "a_tensor", "does not return what is asked for", lambda b, n, m, c, r: torch.tensor(b * n * m * (c + r))
)
miscount("a_word", "does not return what is asked for", lambda b, n, m, c, r: "b n l (c + r)")
miscount("nothing", "does not return what is asked for", lambda b, n, m, c, r: None)
miscount(
    "at_least_one_rotated_number",
    None,
    lambda b, n, m, c, r: b * n * m * (c + max(r, 1)),
    only="no rotated key",
)
miscount(
    "one_token_not_kept",
    None,
    lambda b, n, m, c, r: b * (n if n > 1 else 0) * m * (c + r),
    only="one of everything",
)
miscount(
    "in_float32",
    "rounded on the way",
    lambda b, n, m, c, r: int(torch.tensor([b, n, m, c + r], dtype=torch.float32).prod()),
    only="a large model",
)


@mutant(NAME, "keys and values counted apart", only="latent and rotated key")
def as_for_keys_and_values(batch, length, layers, d_latent, d_rope):
    return 2 * batch * length * layers * (d_latent + d_rope)


@mutant(NAME, "rotated key not counted", only="latent and rotated key")
def without_the_rotated_key(batch, length, layers, d_latent, d_rope):
    return batch * length * layers * d_latent


@mutant(NAME, "does not return what is asked for")
def prints_it(batch, length, layers, d_latent, d_rope):
    print(batch * length * layers * (d_latent + d_rope))
