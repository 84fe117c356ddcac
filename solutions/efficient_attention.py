"""Reference solutions of `efficient_attention`: plain PyTorch, readable first.

Shapes: S_q and S_k lengths, D key width, D_v value width; `...` any leading axes.
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def online_softmax(
    blocks: list[Float[Tensor, "... S_i"]],
) -> tuple[list[Float[Tensor, "... S_i"]], Float[Tensor, "..."]]:
    """Softmax over scores that come in blocks, one after another along the last axis.

    Shapes: blocks, a list of tensors (..., S_1), (..., S_2), ... of unequal widths
            -> weights, a list of tensors of the same shapes; log_sum_exp (...).
    All weights of a row, over all blocks, sum to 1; log_sum_exp is the logarithm of the
    sum of the exponentials of the row's scores. A score may be -inf (masked), and so may
    a whole block: its weights are 0. A row of nothing but -inf has weights 0 and
    log_sum_exp -inf.
    What may be held: the blocks, one result of the same shape for each of them, and for
    each row a running maximum and a running sum. So no tensor may hold more than twice
    the numbers of the largest block, and the blocks may not be joined. Write it out:
    softmax, logsumexp, logaddexp and their relatives are not allowed here.
    Source: Milakov, Gimelshein 2018.
    """
    largest = torch.full_like(blocks[0][..., :1], -torch.inf)  # (..., 1)
    total = torch.zeros_like(largest)
    exponentials, maxima = [], []
    for scores in blocks:
        before = largest
        largest = torch.maximum(before, scores.amax(-1, keepdim=True))
        safe = torch.where(largest == -torch.inf, 0.0, largest)  # -inf - -inf would be nan
        exponential = torch.exp(scores - safe)
        total = total * torch.exp(before - safe) + exponential.sum(-1, keepdim=True)
        exponentials.append(exponential)
        maxima.append(safe)
    alive = total > 0
    scale = torch.where(alive, 1 / torch.where(alive, total, 1.0), 0.0)
    # Each block was measured against the maximum of its own time.
    weights = [e * (torch.exp(m - safe) * scale) for e, m in zip(exponentials, maxima, strict=True)]
    return weights, (safe + torch.log(total)).squeeze(-1)


def chunked_attention(
    query: Float[Tensor, "... S_q D"],
    key: Float[Tensor, "... S_k D"],
    value: Float[Tensor, "... S_k D_v"],
    block_size: int,
    is_causal: bool = False,
) -> tuple[Float[Tensor, "... S_q D_v"], Float[Tensor, "... S_q"]]:
    """Exact attention, a block of keys at a time: the table of weights never exists.

    Shapes: query (..., S_q, D), key (..., S_k, D), value (..., S_k, D_v)
            -> output (..., S_q, D_v), log_sum_exp (..., S_q), in query's dtype and
            device. block_size need not divide the lengths, and may exceed them.
    Units:  scores are dimensionless: dot products divided by sqrt(D), up to 1e5 and more of
            either sign. log_sum_exp is the logarithm of the sum of the exponentials of a
            query's scores.
    is_causal lets query i see keys 0..i only (aligned at the top left).
    Memory: with S the longer length, no tensor may hold more than
            2 S max(D, D_v, block_size) numbers for each leading element.
    Work:   at most the FLOPs of dense attention on lengths rounded up to whole blocks.
            Blocks wholly in the future may be skipped; nobody asks for it.
    Write it out: scaled_dot_product_attention and its relatives are not allowed here.
    backward() must give the derivative (autograd keeps every block then: the memory above
    is that of a call without gradients). In half precision running numbers in float32
    lose least.
    Raises: ValueError if block_size is less than 1.
    Source: Rabe, Staats 2021; Dao et al. 2022.
    """
    if block_size < 1:
        raise ValueError(f"block_size must be at least 1; it is {block_size}")
    wide = torch.promote_types(query.dtype, torch.float32)
    scaled = query.to(wide) / math.sqrt(query.shape[-1])  # (..., S_q, D)
    largest = scaled.new_full((*query.shape[:-1], 1), -torch.inf)  # (..., S_q, 1)
    total = torch.zeros_like(largest)
    output = scaled.new_zeros(*query.shape[:-1], value.shape[-1])  # (..., S_q, D_v)
    rows = torch.arange(query.shape[-2], device=query.device).unsqueeze(-1)  # (S_q, 1)
    for start in range(0, key.shape[-2], block_size):
        keys, values = (x[..., start : start + block_size, :].to(wide) for x in (key, value))
        scores = scaled @ keys.transpose(-2, -1)  # (..., S_q, block)
        if is_causal:
            columns = start + torch.arange(keys.shape[-2], device=key.device)
            scores = scores.masked_fill(columns > rows, -torch.inf)
        before = largest  # finite from the first block on: key 0 is never hidden
        largest = torch.maximum(before, scores.amax(-1, keepdim=True))
        shrink, exponential = torch.exp(before - largest), torch.exp(scores - largest)
        total = total * shrink + exponential.sum(-1, keepdim=True)
        output = output * shrink + exponential @ values
    log_sum_exp = (largest + torch.log(total)).squeeze(-1)
    return (output / total).to(query.dtype), log_sum_exp.to(query.dtype)


def sliding_window_attention(
    query: Float[Tensor, "... S D"],
    key: Float[Tensor, "... S D"],
    value: Float[Tensor, "... S D_v"],
    window: int,
) -> Float[Tensor, "... S D_v"]:
    """Causal attention to the last `window` positions, a position itself included.

    Shapes: query and key (..., S, D), value (..., S, D_v) -> output (..., S, D_v), in
            query's dtype and device.
    Units:  scores are dimensionless: dot products divided by sqrt(D), up to 1e5 and more of
            either sign.
    Position i sees positions i - window + 1 to i, as far as they exist. window may
    exceed S.
    Memory: no tensor may hold more than 2 (S + window) window max(D, D_v) numbers for
            each leading element: of the order of S * window, never S * S.
    Work:   at most 8 (S + window) window (D + D_v) FLOPs for each leading element, four
            times what the pairs in the window need.
    Write it out: scaled_dot_product_attention and its relatives are not allowed here.
    Raises: ValueError if window is less than 1.
    Source: Child et al. 2019; Beltagy et al. 2020.
    """
    if window < 1:
        raise ValueError(f"window must be at least 1; it is {window}")
    outputs, scale = [], 1 / math.sqrt(query.shape[-1])
    for start in range(0, query.shape[-2], window):  # as many queries as the window is long
        stop, first = min(start + window, query.shape[-2]), max(0, start - window + 1)
        keys, values = key[..., first:stop, :], value[..., first:stop, :]
        scores = query[..., start:stop, :] @ keys.transpose(-2, -1) * scale
        rows = torch.arange(start, stop, device=query.device).unsqueeze(-1)
        distance = rows - torch.arange(first, stop, device=query.device)
        outside = (distance < 0) | (distance >= window)
        outputs.append(torch.softmax(scores.masked_fill(outside, -torch.inf), -1) @ values)
    return torch.cat(outputs, -2)


def block_sparse_attention(
    query: Float[Tensor, "... S_q D"],
    key: Float[Tensor, "... S_k D"],
    value: Float[Tensor, "... S_k D_v"],
    block_mask: Bool[Tensor, "blocks_q blocks_k"],
    block_size: int,
) -> Float[Tensor, "... S_q D_v"]:
    """Attention in which whole blocks of queries and keys see each other, or do not.

    Shapes: query (..., S_q, D), key (..., S_k, D), value (..., S_k, D_v), block_mask
            (blocks_q, blocks_k) bool, where blocks_q = ceil(S_q / block_size) and
            blocks_k = ceil(S_k / block_size) -> output (..., S_q, D_v), in query's dtype
            and device. The last block of either kind may be shorter.
    Units:  scores are dimensionless: dot products divided by sqrt(D), up to 1e5 and more of
            either sign.
    Query i may see key j if block_mask[i // block_size, j // block_size] is True. A
    query that may see no key has an output of exactly 0.
    Work:   at most 2 block_size^2 (D + D_v) FLOPs for each allowed block and leading
            element: forbidden blocks are not computed.
    Memory: no tensor as large as (..., S_q, S_k).
    Write it out: scaled_dot_product_attention and its relatives are not allowed here.
    Raises: ValueError if block_mask is not (blocks_q, blocks_k).
    Source: Child et al. 2019; Zaheer et al. 2020.
    """
    S_q, S_k = query.shape[-2], key.shape[-2]
    wanted = (math.ceil(S_q / block_size), math.ceil(S_k / block_size))
    if tuple(block_mask.shape) != wanted:
        raise ValueError(f"block_mask must be {wanted}; it is {tuple(block_mask.shape)}")
    block_of_key = torch.arange(S_k, device=key.device) // block_size  # (S_k,)
    outputs = []
    for queries, allowed in zip(query.split(block_size, -2), block_mask, strict=True):
        seen = allowed[block_of_key]  # (S_k,) bool
        keys, values = key[..., seen, :], value[..., seen, :]
        scores = queries @ keys.transpose(-2, -1) / math.sqrt(query.shape[-1])
        # With no key at all this is a sum of nothing: zero.
        outputs.append(torch.softmax(scores, -1) @ values)
    return torch.cat(outputs, -2)


def alibi_bias(num_heads: int, length_q: int, length_k: int) -> Float[Tensor, "H S_q S_k"]:
    """The bias that ALiBi adds to the scores: a penalty that grows with the distance.

    Returns bias (num_heads, length_q, length_k), float32, with
    bias[h, i, j] = slope[h] * (j - i): zero where a query meets its own position,
    negative in the past. Positions are counted from the start of both sequences. The
    future, j > i, follows the same formula; hiding it is the causal mask's task.
    Slopes: for a power of two H, slope[h] = 2 ** (-8 (h + 1) / H), h = 0 ... H - 1. For
    any other H take the slopes for the next smaller power of two P, then, of the slopes
    for 2 P, every second one beginning with the first, as many as are missing.
    Source: Press, Smith, Lewis 2022.
    """

    def slopes_of(heads: int) -> Tensor:  # heads a power of two
        return 2.0 ** (-8.0 / heads * torch.arange(1, heads + 1))

    power = 2 ** int(math.log2(num_heads))
    slopes = torch.cat([slopes_of(power), slopes_of(2 * power)[::2][: num_heads - power]])
    distance = torch.arange(length_k) - torch.arange(length_q).unsqueeze(-1)  # (S_q, S_k)
    return slopes.view(-1, 1, 1) * distance


def sliding_window_mask(
    batch: Int[Tensor, "..."],
    head: Int[Tensor, "..."],
    query_index: Int[Tensor, "..."],
    key_index: Int[Tensor, "..."],
) -> Bool[Tensor, "..."]:
    """A mask_mod for FlexAttention: may this query see this key? A window of 16, causal.

    True where the key is one of the last 16 positions, the query's own included.
    The arguments are tensors of whole numbers, with no axes or with axes that broadcast
    against each other; the result is a bool tensor of the shape that query_index and
    key_index have together. FlexAttention calls it for a single pair, under vmap. So only
    tensor operations: no `if`, `and`, `or`, `not` or .item() on a tensor, no writing into
    one, and no tensor of more than 256 numbers for a single pair.
    """
    distance = query_index - key_index
    return (distance >= 0) & (distance < 16)


def alibi_score(
    score: Float[Tensor, "..."],
    batch: Int[Tensor, "..."],
    head: Int[Tensor, "..."],
    query_index: Int[Tensor, "..."],
    key_index: Int[Tensor, "..."],
) -> Float[Tensor, "..."]:
    """A score_mod for FlexAttention: the score with ALiBi's bias for 8 heads added.

    Adds slope[head] * (key_index - query_index), slope[head] = 2 ** -(head + 1), as
    alibi_bias(8, ...) does; the causal mask is not its task.
    score is a float tensor, the others are tensors of whole numbers, with no axes or with
    axes that broadcast; the result is as score. Only tensor operations, as in
    sliding_window_mask.
    """
    return score + torch.exp2(-(head + 1.0)) * (key_index - query_index)


dense_cost = "c"

weights_memory = 32 * 16384**2 * 2

distant_information = "b"

chunked_flops = "d"

stale_maximum = "a"

causal_tiles = 16 * 17 / 2

window_reach = 1 + 8 * (64 - 1)

block_sparse_saves = "c"

alibi_future = "b"
