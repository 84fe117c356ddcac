"""Reference solutions of `efficient_attention`: plain PyTorch, readable first.

Shapes: B batch, H heads, S, S_q and S_k lengths, M length of a memory, D key width, D_v value width; `...` any leading
        axes.
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


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
    the numbers of the largest block, and the blocks may not be joined. The list and its
    tensors are left as they are. Write it out: softmax, logsumexp, logaddexp and their
    relatives are not allowed here.
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
        maxima.append(largest)  # -inf as long as all was masked: exp(-inf) is 0 then
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
        steps = torch.arange(1, heads + 1, dtype=torch.float32)
        return 2.0 ** (-8.0 / heads * steps)

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
    score is a float32 or float64 tensor, the others are tensors of whole numbers, with no
    axes or with axes that broadcast; the result has score's shape and dtype. Only tensor operations, as in
    sliding_window_mask.
    """
    return score + torch.exp2(-(head + 1.0)) * (key_index - query_index)


def linear_attention(
    query: Float[Tensor, "... S_q D"],
    key: Float[Tensor, "... S_k D"],
    value: Float[Tensor, "... S_k D_v"],
) -> Float[Tensor, "... S_q D_v"]:
    """Attention whose weights are products of features, at a cost linear in the length.

    Shapes: query (..., S_q, D), key (..., S_k, D), value (..., S_k, D_v)
            -> output (..., S_q, D_v), in query's dtype and device.
    The weight of query q and key k is phi(q) . phi(k), with phi(x) = elu(x) + 1 in each
    feature, divided by the sum of the row, so that the weights of a query sum to one.
    There is no factor 1 / sqrt(D), no softmax, and nothing added to the denominator:
    features are positive.
    The (S_q, S_k) table is never made: multiply-adds and the largest tensor grow with
    S_q + S_k, not with their product.
    Source: Katharopoulos et al. 2020, section 3.2.
    """
    phi_q, phi_k = nn.functional.elu(query) + 1, nn.functional.elu(key) + 1
    kv = phi_k.transpose(-2, -1) @ value  # (..., D, D_v)
    z = phi_k.sum(-2)  # (..., D)
    return (phi_q @ kv) / (phi_q @ z.unsqueeze(-1))


def causal_linear_attention(
    query: Float[Tensor, "... S D"],
    key: Float[Tensor, "... S D"],
    value: Float[Tensor, "... S D_v"],
    state: tuple[Float[Tensor, "... D D_v"], Float[Tensor, "... D"]] | None = None,
) -> tuple[Float[Tensor, "... S D_v"], tuple[Float[Tensor, "... D D_v"], Float[Tensor, "... D"]]]:
    """Causal linear attention, which reads its past from a state of fixed size.

    Shapes: query and key (..., S, D), value (..., S, D_v), state None or
            (kv (..., D, D_v), z (..., D)) -> output (..., S, D_v), (kv, z), in query's
            dtype and device.
    As linear_attention, but position i sees positions 0..i only, and all positions of
    the pieces before. kv is the sum of phi(k) v^T over the positions seen so far, z that
    of phi(k); None stands for nothing seen. The state that comes back includes this
    piece: a sequence fed in pieces, the state handed on, gives what it gives as a whole.
    Gradients flow through the state, the given one and the one that is returned.
    Work and memory grow linearly with S: a table of (S, S) is not made, while one of
    (S, D, D_v) may be.
    Source: Katharopoulos et al. 2020, sections 3.3 and 3.4.
    """
    phi_q, phi_k = nn.functional.elu(query) + 1, nn.functional.elu(key) + 1
    kv = (phi_k.unsqueeze(-1) * value.unsqueeze(-2)).cumsum(-3)  # (..., S, D, D_v)
    z = phi_k.cumsum(-2)  # (..., S, D)
    if state is not None:
        kv, z = kv + state[0].unsqueeze(-3), z + state[1].unsqueeze(-2)
    output = (phi_q.unsqueeze(-2) @ kv).squeeze(-2)  # (..., S, D_v)
    output = output / (phi_q * z).sum(-1, keepdim=True)
    return output, (kv[..., -1, :, :], z[..., -1, :])


def low_rank_attention(
    query: Float[Tensor, "... S_q D"],
    key: Float[Tensor, "... S_k D"],
    value: Float[Tensor, "... S_k D_v"],
    E: Float[Tensor, "k S_k"],
    F: Float[Tensor, "k S_k"],
) -> Float[Tensor, "... S_q D_v"]:
    """Attention over k mixtures of the keys and values instead of over all of them.

    Shapes: query (..., S_q, D), key (..., S_k, D), value (..., S_k, D_v), E and F
            (k, S_k) -> output (..., S_q, D_v), in query's dtype and device.
    E mixes the keys along the length, F the values: k keys E K and k values F V are left.
    Then softmax(q (E K)^T / sqrt(D)) (F V). The same E and F serve all leading axes.
    Work grows with S_q k, and the (S_q, S_k) table is never made.
    Write it out: scaled_dot_product_attention and its relatives are not allowed here.
    Raises: ValueError if E and F are not both (k, S_k).
    Source: Wang et al. 2020 (Linformer), section 4.
    """
    if E.shape != F.shape or E.shape[-1] != key.shape[-2]:
        shapes = f"{tuple(E.shape)} and {tuple(F.shape)}"
        raise ValueError(f"E and F must both be (k, {key.shape[-2]}); they are {shapes}")
    keys, values = E @ key, F @ value  # (..., k, D), (..., k, D_v)
    scores = query @ keys.transpose(-2, -1) / math.sqrt(query.shape[-1])  # (..., S_q, k)
    return torch.softmax(scores, -1) @ values


def recurrent_attention(
    x: Float[Tensor, "... S d"],
    memory: Float[Tensor, "... M d"] | None,
    W_q: Float[Tensor, "d D"],
    W_k: Float[Tensor, "d D"],
    W_v: Float[Tensor, "d D_v"],
    memory_length: int,
) -> tuple[Float[Tensor, "... S D_v"], Float[Tensor, "... M_new d"]]:
    """Causal attention of one segment to itself and to a memory of earlier segments.

    Shapes: x (..., S, d), memory None or (..., M, d), W_q and W_k (d, D), W_v (d, D_v)
            -> output (..., S, D_v), new_memory (..., min(M + S, memory_length), d), in
            x's dtype and device.
    Queries are x W_q; keys and values are made of [memory, x], memory first. Position i
    of the segment sees the whole memory and positions 0..i of the segment; scores are
    divided by sqrt(D), 1e5 and more of either sign. new_memory holds the last memory_length rows of [memory, x], as
    they are: this segment's attention has read the old memory, not the new one.
    No gradient flows into memory, and none out of new_memory; W_k and W_v do learn from
    what the memory holds.
    Write it out: scaled_dot_product_attention and its relatives are not allowed here.
    Source: Dai et al. 2019 (Transformer-XL), section 3.2, without relative positions.
    """
    memory = x[..., :0, :] if memory is None else memory.detach()
    context = torch.cat([memory, x], -2)  # (..., M + S, d)
    query, key, value = x @ W_q, context @ W_k, context @ W_v
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])  # (..., S, M + S)
    allowed = torch.ones(scores.shape[-2:], dtype=torch.bool, device=x.device)
    scores = scores.masked_fill(~allowed.tril(memory.shape[-2]), -torch.inf)
    kept = max(context.shape[-2] - memory_length, 0)
    return torch.softmax(scores, -1) @ value, context[..., kept:, :].detach()


class AttentionFusion(nn.Module):
    """Attention whose scores are a learned mixture of three kinds of score.

    Parameters: W, nn.Parameter (d_model, d_model); mix, nn.Parameter (3,).
    Shapes: query (..., S_q, d_model), key (..., S_k, d_model), value (..., S_k, D_v)
            -> output (..., S_q, D_v), weights (..., S_q, S_k), in query's dtype and
            device.
    The three kinds, in this order: scaled dot product q . k / sqrt(d_model); cosine
    q . k / (|q| |k|); bilinear q W k. Their shares are softmax(mix): positive, and one
    in sum. The mixed scores go through one softmax over the keys. No query or key is
    zero: nothing is added to a norm.
    Write it out: scaled_dot_product_attention and its relatives are not allowed here.
    """

    def __init__(self, d_model: int):
        super().__init__()
        self.W = nn.Parameter(torch.randn(d_model, d_model) / d_model)
        self.mix = nn.Parameter(torch.zeros(3))

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        products = query @ key.transpose(-2, -1)  # (..., S_q, S_k)
        norms = query.norm(dim=-1, keepdim=True) * key.norm(dim=-1).unsqueeze(-2)
        bilinear = query @ self.W @ key.transpose(-2, -1)
        kinds = (products / math.sqrt(query.shape[-1]), products / norms, bilinear)
        shares = torch.softmax(self.mix, 0)  # (3,)
        scores = sum(share * kind for share, kind in zip(shares, kinds, strict=True))
        weights = torch.softmax(scores, -1)
        return weights @ value, weights


def adaptive_span_attention(
    query: Float[Tensor, "... H S D"],
    key: Float[Tensor, "... H S D"],
    value: Float[Tensor, "... H S D_v"],
    span: Float[Tensor, "H"],
    ramp: float,
) -> tuple[Float[Tensor, "... H S D_v"], Float[Tensor, "... H S S"], Float[Tensor, ""]]:
    """Causal attention in which each head learns how far back it looks.

    Shapes: query and key (..., H, S, D), value (..., H, S, D_v), span (H,)
            -> output (..., H, S, D_v), weights (..., H, S, S), penalty (), in query's
            dtype and device.
    Units:  span and ramp are numbers of positions, span >= 0, ramp > 0; scores are dot
            products divided by sqrt(D), 1e5 and more of either sign.
    In head h, a key that lies x = i - j positions back counts by the soft mask
    m(x) = (ramp + span[h] - x) / ramp, clamped to [0, 1]: one up to the span, then down
    to zero over `ramp` positions. weights = m exp(score) / sum of m exp(score), over the
    positions j <= i; where m is 0, so is the weight. A position always sees itself, so
    the sum is never zero: also where a score beyond the span is huge.
    penalty is the mean of span over the heads, to be added to a loss with a factor.
    Gradients reach span through the mask, and stay finite where the mask is 0.
    Write it out: scaled_dot_product_attention and its relatives are not allowed here.
    Source: Sukhbaatar et al. 2019, section 2.
    """
    place = torch.arange(query.shape[-2], device=query.device)
    back = place[:, None] - place  # (S, S): i - j
    mask = ((ramp + span[:, None, None] - back) / ramp).clamp(0, 1)  # (H, S, S)
    mask = mask.masked_fill(back < 0, 0.0)
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])  # (..., H, S, S)
    scores = scores.masked_fill(mask == 0, -torch.inf)
    seen = mask * torch.exp(scores - scores.amax(-1, keepdim=True))
    weights = seen / seen.sum(-1, keepdim=True)
    return weights @ value, weights, span.mean()


class LatentAttention(nn.Module):
    """Causal multi-head attention whose cache is one short vector for each token.

    Parameters: q_proj, nn.Linear(d_model, d_model); kv_down, nn.Linear(d_model,
            d_latent); k_up and v_up, nn.Linear(d_latent, d_model); out_proj,
            nn.Linear(d_model, d_model); none has a bias.
    Shapes: x (..., S, d_model), cache None or (..., P, d_latent)
            -> output (..., S, d_model), new_cache (..., P + S, d_latent), in x's dtype
            and device.
    x holds the tokens at positions P, P + 1, ...; cache the latents kv_down(x) of the P
    tokens before. new_cache is the cache with the latents of x behind it: no keys, no
    values. Keys k_up(latent) and values v_up(latent) are split into num_heads heads of
    width D = d_model / num_heads, next to each other, as the queries are. The token at
    position p sees positions 0..p; scores are divided by sqrt(D), 1e5 and more of either
    sign. Gradients flow from
    the output to x, to the given cache and to all five layers.
    Write it out: scaled_dot_product_attention and its relatives are not allowed here.
    Source: DeepSeek-AI 2024 (DeepSeek-V2), section 2.1.2, without compressed queries and
            without the rotary key that is kept apart.
    """

    def __init__(self, d_model: int, num_heads: int, d_latent: int):
        super().__init__()
        self.num_heads = num_heads
        self.q_proj = nn.Linear(d_model, d_model, bias=False)
        self.kv_down = nn.Linear(d_model, d_latent, bias=False)
        self.k_up = nn.Linear(d_latent, d_model, bias=False)
        self.v_up = nn.Linear(d_latent, d_model, bias=False)
        self.out_proj = nn.Linear(d_model, d_model, bias=False)

    def heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(-3, -2)  # (..., H, S, D)

    def forward(self, x: Tensor, cache: Tensor | None = None) -> tuple[Tensor, Tensor]:
        latent = self.kv_down(x)  # (..., S, d_latent)
        latent = latent if cache is None else torch.cat([cache, latent], -2)
        query, key, value = self.q_proj(x), self.k_up(latent), self.v_up(latent)
        query, key, value = self.heads(query), self.heads(key), self.heads(value)
        scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
        allowed = torch.ones(scores.shape[-2:], dtype=torch.bool, device=x.device)
        allowed = allowed.tril(latent.shape[-2] - x.shape[-2])  # queries are the last
        weights = torch.softmax(scores.masked_fill(~allowed, -torch.inf), -1)
        output = (weights @ value).transpose(-3, -2).flatten(-2)  # (..., S, d_model)
        return self.out_proj(output), latent


def latent_cache_elements(batch: int, length: int, layers: int, d_latent: int, d_rope: int) -> int:
    """Count the numbers that multi-head latent attention keeps in its cache.

    Every layer keeps, for each token of each sequence, one latent of d_latent numbers
    and one rotated key of d_rope numbers, which all heads share (d_rope may be 0).
    Returns a whole number (int), exact.
    Source: DeepSeek-AI 2024, table 1.
    """
    return batch * length * layers * (d_latent + d_rope)


dense_cost = "c"

weights_memory = 32 * 16384**2 * 2

distant_information = "b"

chunked_flops = "d"

stale_maximum = "a"

causal_tiles = 16 * 17 / 2

window_reach = 1 + 8 * (64 - 1)

block_sparse_saves = "c"

alibi_future = "b"

factored_softmax = "b"

linear_state_numbers = 16 * (64 * 64 + 64)

linear_pays_from = 2 * 128 * 64 // (128 + 64) + 1

linformer_causal = "c"

span_gradient = "d"

memory_reach = "a"

latent_against_grouped = 2 * 8 * 128 / (512 + 64)

absorbed_keys = "b"
