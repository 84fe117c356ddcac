"""Reference solutions of `shared_attention`: plain PyTorch, corrected, one screen each.

Shapes: B batch, H_q query heads, H_kv key and value heads, S_q and S_k lengths, D key
        width, D_v value width; `...` any leading axes.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn


def shared_attention(
    query: Float[Tensor, "... S_q D_q"],
    key: Float[Tensor, "... S_k D_k"],
    value: Float[Tensor, "... S_k D_v"],
    weight: Float[Tensor, "D_q D_k"],
) -> tuple[Float[Tensor, "... S_q D_v"], Float[Tensor, "... S_q S_k"]]:
    """Attention whose scores come from one matrix between queries and keys.

    Shapes: query (..., S_q, D_q), key (..., S_k, D_k), value (..., S_k, D_v),
            weight (D_q, D_k)
            -> output (..., S_q, D_v), weights (..., S_q, S_k), in query's dtype and
            device.
    The score of a query q and a key k is q weight k: a softmax over the keys turns it
    into a weight. There is no factor 1 / sqrt(D): the matrix carries the scale.
    Write it out: scaled_dot_product_attention and its relatives are not allowed here.
    Raises: ValueError if weight is not (D_q, D_k), or key and value differ in S_k.
    Source: Luong et al. 2015, score "general", used for attention.
    """
    if weight.shape != (query.shape[-1], key.shape[-1]):
        wanted = (query.shape[-1], key.shape[-1])
        raise ValueError(f"weight must be (D_q, D_k) = {wanted}; it is {tuple(weight.shape)}")
    if key.shape[-2] != value.shape[-2]:
        raise ValueError(f"key and value differ in length: {key.shape[-2]}, {value.shape[-2]}")
    scores = query @ weight @ key.transpose(-2, -1)  # (..., S_q, S_k)
    weights = torch.softmax(scores, -1)
    return weights @ value, weights


class SymmetricAttention(nn.Module):
    """Self-attention in which one projection makes both the queries and the keys.

    Parameters: qk_proj, v_proj, out_proj, each nn.Linear(d_model, d_model).
    Shapes: x (..., S, d_model) -> output (..., S, d_model), weights (..., S, S), in x's
            dtype and device.
    Units:  scores are dimensionless: dot products divided by sqrt(d_model).
    The scores are symmetric: i scores j as j scores i. The weights are not, as each row
    is normalised on its own. is_causal lets position i see positions 0..i only. The
    output is out_proj of the weighted values.
    Source: Kitaev et al. 2020, "shared-QK attention" (there with keys of unit length).
    """

    def __init__(self, d_model: int):
        super().__init__()
        self.qk_proj = nn.Linear(d_model, d_model)
        self.v_proj = nn.Linear(d_model, d_model)
        self.out_proj = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor, is_causal: bool = False) -> tuple[Tensor, Tensor]:
        both = self.qk_proj(x)  # (..., S, d_model): queries and keys
        scores = both @ both.transpose(-2, -1) / math.sqrt(x.shape[-1])  # (..., S, S)
        if is_causal:
            allowed = torch.ones(scores.shape[-2:], dtype=torch.bool, device=x.device).tril()
            scores = scores.masked_fill(~allowed, -torch.inf)
        weights = torch.softmax(scores, -1)
        return self.out_proj(weights @ self.v_proj(x)), weights


def grouped_query_attention(
    query: Float[Tensor, "B H_q S_q D"],
    key: Float[Tensor, "B H_kv S_k D"],
    value: Float[Tensor, "B H_kv S_k D_v"],
    is_causal: bool = False,
) -> tuple[Float[Tensor, "B H_q S_q D_v"], Float[Tensor, "B H_q S_q S_k"]]:
    """Attention with fewer heads for keys and values than for queries.

    Shapes: query (B, H_q, S_q, D), key (B, H_kv, S_k, D), value (B, H_kv, S_k, D_v)
            -> output (B, H_q, S_q, D_v), weights (B, H_q, S_q, S_k), in query's dtype
            and device.
    Units:  scores are dimensionless: dot products divided by sqrt(D).
    Neighbours share: query head h reads key and value head h // (H_q / H_kv), as with
    enable_gqa=True in scaled_dot_product_attention. H_kv = H_q is multi-head attention,
    H_kv = 1 multi-query attention. is_causal lets query i see keys 0..i only (aligned
    at the top left).
    Write it out: scaled_dot_product_attention and its relatives are not allowed here.
    Raises: ValueError if H_q is not a multiple of H_kv, or key and value differ in H_kv.
    Source: Shazeer 2019 (one head for all); Ainslie et al. 2023 (groups).
    """
    H_q, H_kv = query.shape[1], key.shape[1]
    if H_q % H_kv:
        raise ValueError(f"{H_q} query heads cannot share {H_kv} key heads evenly")
    if value.shape[1] != H_kv:
        raise ValueError(f"key and value differ in heads: {H_kv}, {value.shape[1]}")
    key = key.repeat_interleave(H_q // H_kv, 1)  # (B, H_q, S_k, D)
    value = value.repeat_interleave(H_q // H_kv, 1)  # (B, H_q, S_k, D_v)
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])  # (B, H_q, S_q, S_k)
    if is_causal:
        allowed = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~allowed, -torch.inf)
    weights = torch.softmax(scores, -1)
    return weights @ value, weights


def count_parameters(d_model: int, num_heads: int, num_kv_heads: int, bias: bool) -> int:
    """Count the numbers that one attention layer with grouped heads learns.

    The layer has four linear maps, of head width d_model / num_heads: q_proj and
    out_proj from d_model to d_model; k_proj and v_proj from d_model to the width of
    all key and value heads together. With `bias` each of the four has one.
    Returns a whole number (int), exact.
    Raises: ValueError if d_model is not a multiple of num_heads, or num_heads not a
            multiple of num_kv_heads.
    """
    if d_model % num_heads or num_heads % num_kv_heads:
        raise ValueError(f"{d_model} / {num_heads} and {num_heads} / {num_kv_heads} must be whole")
    d_kv = d_model // num_heads * num_kv_heads
    weights = 2 * d_model * d_model + 2 * d_model * d_kv
    return weights + (2 * d_model + 2 * d_kv if bias else 0)


def kv_cache_bytes(
    batch: int, length: int, layers: int, num_kv_heads: int, head_dim: int, dtype: torch.dtype
) -> int:
    """Count the bytes that the keys and values of `length` tokens take in the cache.

    Every layer keeps one key and one value of width head_dim for each sequence of the
    batch, each token and each key/value head; dtype.itemsize is the bytes of a number.
    Returns a whole number (int), exact.
    """
    return 2 * batch * length * layers * num_kv_heads * head_dim * dtype.itemsize


class SharedLayerStack(nn.Module):
    """One layer applied `depth` times: its weights are shared by all depths.

    Parameters: those of `layer`, once, whatever the depth; nothing else.
    Shapes: x -> an output of the same shape, layer(layer(...layer(x))).
    layer is any nn.Module that maps a tensor to one of the same shape.
    Raises: ValueError if depth is less than 1.
    Source: Dehghani et al. 2019 (Universal Transformer); Lan et al. 2020 (ALBERT).
    """

    def __init__(self, layer: nn.Module, depth: int):
        super().__init__()
        if depth < 1:
            raise ValueError(f"depth must be at least 1; it is {depth}")
        self.layer = layer
        self.depth = depth

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.depth):
            x = self.layer(x)
        return x


class SharedAcrossTasks(nn.Module):
    """Several tasks share one attention; each task has a head of its own.

    Parameters: q_proj, k_proj, v_proj, each nn.Linear(d_model, d_model), shared; heads,
            an nn.ModuleList of num_tasks layers nn.Linear(d_model, d_model).
    Shapes: x (..., S, d_model), task a whole number -> output (..., S, d_model), weights
            (..., S, S), in x's dtype and device.
    Units:  scores are dimensionless: dot products divided by sqrt(d_model).
    The output is heads[task] of the weighted values; the other heads take no part, and
    the weights are the same for every task.
    Raises: ValueError (from forward) unless 0 <= task < num_tasks.
    Source: Caruana 1997, hard parameter sharing.
    """

    def __init__(self, d_model: int, num_tasks: int):
        super().__init__()
        self.q_proj = nn.Linear(d_model, d_model)
        self.k_proj = nn.Linear(d_model, d_model)
        self.v_proj = nn.Linear(d_model, d_model)
        self.heads = nn.ModuleList(nn.Linear(d_model, d_model) for _ in range(num_tasks))

    def forward(self, x: Tensor, task: int) -> tuple[Tensor, Tensor]:
        if not 0 <= task < len(self.heads):
            raise ValueError(f"task must be in 0..{len(self.heads) - 1}; it is {task}")
        query, key, value = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        scores = query @ key.transpose(-2, -1) / math.sqrt(x.shape[-1])  # (..., S, S)
        weights = torch.softmax(scores, -1)
        return self.heads[task](weights @ value), weights


weight_shape = "c"

unused_keys = "a"

symmetric_limit = "d"

gqa_saves = "b"

saved_parameters = 2 * 4096 * (4096 - 1024)

cache_bytes = 2 * 32 * 8192 * 8 * 128 * 2

shared_gradient = 3 * 2**2 * 5

sharing_quality = "c"
