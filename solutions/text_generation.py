"""Reference solutions of `text_generation`: plain PyTorch, corrected, one screen each.

Shapes: B batch, H heads, S length, S_q and S_k lengths of queries and keys, D head width, V tokens in the vocabulary;
        `...` any leading axes.
A token is a whole number from 0 to V - 1. A model is a function `model(tokens, start=0)`: tokens (..., S), int64, are
the tokens at positions start .. start + S - 1, and logits (..., S, V) come back, row i for the token that follows
position start + i. The model remembers the positions before `start` from earlier calls; start=0 begins a new text.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


def causal_mask(S_q: int, S_k: int) -> Bool[Tensor, "S_q S_k"]:
    """Which keys each query may see, if the queries are the last S_q of S_k positions.

    Shapes: -> mask (S_q, S_k), bool, True where attention is allowed.
    Query i stands at position S_k - S_q + i and sees the keys up to its own position: the
    triangle is aligned at the bottom right. The last query always sees every key.
    Raises: ValueError if S_q exceeds S_k: a query would stand before the first key.
    """
    if S_q > S_k:
        raise ValueError(f"more queries than keys: {S_q} > {S_k}")
    return torch.ones(S_q, S_k, dtype=torch.bool).tril(S_k - S_q)


def perplexity(
    logits: Float[Tensor, "... S V"], targets: Int[Tensor, "... S"], ignore_index: int = -100
) -> Float[Tensor, ""]:
    """exp of the mean negative log-likelihood (natural logarithm) of the targets.

    Shapes: logits (..., S, V), targets (..., S), int64 -> a tensor of no axes, in logits'
            dtype. Row t of the logits is the prediction of targets[t]: nothing is shifted
            here.
    Targets equal to ignore_index do not count; all others weigh alike, whichever sentence
    they stand in. Large logits must not overflow.
    Raises: ValueError if no target counts.
    """
    counts = targets != ignore_index  # (..., S)
    if not counts.any():
        raise ValueError(f"no target counts: all are {ignore_index}")
    log_probs = torch.log_softmax(logits[counts], -1)  # (N, V)
    losses = -log_probs.gather(-1, targets[counts].unsqueeze(-1))  # (N, 1)
    return losses.mean().exp()


def sample_next_token(
    logits: Float[Tensor, "... V"],
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> Int[Tensor, "..."]:
    """Draw one token from each row of logits.

    Shapes: logits (..., V) -> tokens (...), int64; rows are drawn independently.
    temperature 0 is greedy: the most likely token. Otherwise, in this order:
    1. the logits are divided by temperature;
    2. top_k keeps the top_k most likely tokens (all, if there are fewer);
    3. top_p keeps, among those, the smallest number of most likely tokens whose
       probabilities, normalised after step 2, sum to at least top_p: the token that
       crosses top_p stays, so at least one token always does;
    4. one token is drawn from what is kept, normalised, with `generator`.
    Of equal logits the one with the lower index counts as more likely. A logit of -inf is
    never drawn. No other source of random numbers than `generator` is used.
    Raises: ValueError if temperature < 0, top_k < 1, top_p <= 0 or top_p > 1.
    """
    if temperature < 0 or (top_k is not None and top_k < 1) or (top_p is not None and not 0 < top_p <= 1):
        raise ValueError(f"temperature {temperature}, top_k {top_k} or top_p {top_p} is out of range")
    if temperature == 0:
        return logits.argmax(-1)
    ranked, order = torch.sort(logits, dim=-1, descending=True, stable=True)
    probs = torch.softmax(ranked / temperature, -1)[..., :top_k]  # (..., K)
    probs = probs / probs.sum(-1, keepdim=True)
    if top_p is not None:
        before = probs.cumsum(-1) - probs  # the probability of all that are more likely
        probs = probs.masked_fill(before >= top_p, 0.0)
    drawn = torch.multinomial(probs.reshape(-1, probs.shape[-1]), 1, generator=generator)
    return order.gather(-1, drawn.reshape(*logits.shape[:-1], 1)).squeeze(-1)


def generate(
    model: Callable[..., Tensor],
    prompt: Int[Tensor, " S"],
    max_new_tokens: int,
    eos: int | None = None,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> Int[Tensor, " S_all"]:
    """Continue a prompt, one token at a time, each new token being fed back to the model.

    Shapes: prompt (S,), int64, S >= 1 -> the prompt followed by the new tokens, int64.
    `model(tokens, start=0)`: tokens (S,) at positions start .. start + S - 1 -> logits
    (S, V), whose last row predicts the token after them. It remembers earlier positions,
    so each position is handed over once: the whole prompt in the first call, with start=0,
    then one token a call.
    The next token is drawn by `sample_next_token` with the settings given here.
    Stops after max_new_tokens, or as soon as the model has produced eos, which stays in the
    result (an eos in the prompt stops nothing). The model is not asked for anything that is
    not needed: n new tokens take n calls, none take none.
    """
    tokens, fresh, start = prompt, prompt, 0
    for _ in range(max_new_tokens):
        logits = model(fresh, start)  # (S_fresh, V)
        start += len(fresh)
        fresh = sample_next_token(logits[-1], temperature, top_k, top_p, generator).reshape(1)
        tokens = torch.cat([tokens, fresh])
        if eos is not None and fresh.item() == eos:
            break
    return tokens


class KVCache:
    """The keys and values of all positions so far, for at most max_length positions.

    append(key, value) adds positions and returns the keys and values of all positions so
    far, oldest first. len(cache) is how many there are. reset() forgets them all.
    Shapes: key (..., S, D), value (..., S, D_v) -> keys (..., S_all, D), values
            (..., S_all, D_v), in their dtype. S differs from call to call.
    Raises: ValueError if there would be more than max_length positions; the cache is then
            as it was before.
    """

    def __init__(self, max_length: int):
        self.max_length = max_length
        self.reset()

    def __len__(self) -> int:
        return self.length

    def reset(self) -> None:
        self.length = 0

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        end = self.length + key.shape[-2]
        if end > self.max_length:
            raise ValueError(f"{end} positions do not fit into a cache of {self.max_length}")
        if self.length == 0:  # room for all positions at once: nothing is copied later
            self.keys = key.new_empty(*key.shape[:-2], self.max_length, key.shape[-1])
            self.values = value.new_empty(*value.shape[:-2], self.max_length, value.shape[-1])
        self.keys[..., self.length : end, :] = key
        self.values[..., self.length : end, :] = value
        self.length = end
        return self.keys[..., :end, :], self.values[..., :end, :]


class CachedSelfAttention(nn.Module):
    """Causal multi-head self-attention that remembers the keys and values it has computed.

    Parameters: q_proj, k_proj, v_proj, out_proj, each nn.Linear(d_model, d_model). Head h
            owns the features h * D .. (h + 1) * D - 1, with D = d_model // num_heads.
    forward(x, start=0): x holds positions start .. start + S - 1 of a text. Each attends to
    itself and to all positions before it, also to those of earlier calls. start=0 forgets
    the earlier text, so forward(x) is the ordinary full pass. Feeding a text in pieces, of
    any lengths, gives the same as the full pass.
    Shapes: x (..., S, d_model) -> output (..., S, d_model), in x's dtype and device.
    Cost:   projections for the S new positions only; keys and values are never recomputed.
    What is remembered is no part of the model's state: no parameter, no registered buffer.
    Gradients are needed for the full pass only.
    Raises: ValueError if d_model is not divisible by num_heads, if start is neither 0 nor
            the number of positions remembered, or if start + S > max_length.
    """

    def __init__(self, d_model: int, num_heads: int, max_length: int):
        super().__init__()
        if d_model % num_heads != 0:
            raise ValueError(f"d_model {d_model} is not divisible by num_heads {num_heads}")
        self.num_heads = num_heads
        self.q_proj = nn.Linear(d_model, d_model)
        self.k_proj = nn.Linear(d_model, d_model)
        self.v_proj = nn.Linear(d_model, d_model)
        self.out_proj = nn.Linear(d_model, d_model)
        self.cache = KVCache(max_length)

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        if start == 0:
            self.cache.reset()
        if start != len(self.cache):
            raise ValueError(f"start is {start}, but {len(self.cache)} positions are remembered")
        query, key, value = (
            layer(x).unflatten(-1, (self.num_heads, -1)).transpose(-3, -2)  # (..., H, S, D)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        keys, values = self.cache.append(key, value)  # (..., H, S_all, D)
        scores = query @ keys.transpose(-2, -1) / math.sqrt(query.shape[-1])  # (..., H, S, S_all)
        allowed = causal_mask(*scores.shape[-2:]).to(x.device)
        weights = torch.softmax(scores.masked_fill(~allowed, -torch.inf), -1)
        return self.out_proj((weights @ values).transpose(-3, -2).flatten(-2))  # (..., S, d_model)


def beam_search(
    model: Callable[..., Tensor],
    prompt: Int[Tensor, " S"],
    beam_size: int,
    max_new_tokens: int,
    eos: int,
    length_penalty: float = 0.0,
) -> tuple[Int[Tensor, " S_all"], float]:
    """Search for a likely continuation, keeping the beam_size best beginnings at each step.

    Shapes: prompt (S,), int64 -> the prompt followed by the best continuation, and its score.
    `model(tokens)`: tokens (N, S), N texts of one length -> logits (N, S, V). It is called
    once a step, with all live texts, at most max_new_tokens times.
    The log-probability of a text is the sum over its new tokens, eos included. At each step
    every live text is extended by every token; the beam_size most likely extensions are
    kept. Those that end in eos are finished and leave the beam; the others live on. The
    search ends when no text lives, or after max_new_tokens, when the live texts count as
    finished, too.
    The score is log-probability / n ** length_penalty for n new tokens; the finished text
    of the highest score wins. Of equals the earlier found, and the lower token, goes first.
    """
    live, sums = prompt.unsqueeze(0), torch.zeros(1)  # (N, S), (N,)
    best, best_score = prompt, -math.inf
    for step in range(1, max_new_tokens + 1):
        log_probs = torch.log_softmax(model(live)[:, -1], -1)  # (N, V)
        totals, order = (sums.unsqueeze(-1) + log_probs).flatten().sort(descending=True, stable=True)
        text = order[:beam_size] // log_probs.shape[-1]
        token = order[:beam_size] % log_probs.shape[-1]
        live = torch.cat([live[text], token.unsqueeze(-1)], -1)  # (beam_size, S + step)
        sums = totals[:beam_size]
        ended = (token == eos) | (step == max_new_tokens)
        for finished, total in zip(live[ended], sums[ended].tolist(), strict=True):
            if total / step**length_penalty > best_score:
                best, best_score = finished, total / step**length_penalty
        live, sums = live[~ended], sums[~ended]
        if len(live) == 0:
            break
    return best, best_score


class Seq2SeqGenerator:
    """Write one sequence while reading another: a decoder attends to an encoder's states.

    encoder(source): source (S,), int64 -> memory (S, D), state (D,): what the decoder may
            read, and the state it starts from.
    attention(query, key, value): query (1, D), key and value (S, D) -> output (1, D),
            weights (1, S).
    decoder(token, state, context): token (), int64, state (D,), context (D,)
            -> logits (V,), the next state (D,).
    """

    def __init__(
        self,
        encoder: Callable[..., tuple[Tensor, Tensor]],
        decoder: Callable[..., tuple[Tensor, Tensor]],
        attention: Callable[..., tuple[Tensor, Tensor]],
    ):
        self.encoder = encoder
        self.decoder = decoder
        self.attention = attention

    def generate(
        self, source: Int[Tensor, " S"], bos: int, eos: int, max_new_tokens: int
    ) -> tuple[Int[Tensor, " T"], Float[Tensor, "T S"]]:
        """Translate greedily, and say where the decoder looked.

        Shapes: source (S,), int64 -> tokens (T,), int64, and the attention map (T, S), whose
                row t holds the weights that were used to choose tokens[t].
        The source is encoded once. At each step the decoder's state is the query, the memory
        is keys and values; the decoder gets the token chosen last (bos at first), its state,
        and the attention's output as context. The most likely token is chosen.
        Stops after max_new_tokens (at least 1), or at eos, which stays in the result; bos
        does not.
        """
        memory, state = self.encoder(source)  # (S, D), (D,)
        token, tokens, looked = torch.tensor(bos), [], []
        for _ in range(max_new_tokens):
            context, weights = self.attention(state.unsqueeze(0), memory, memory)  # (1, D), (1, S)
            logits, state = self.decoder(token, state, context.squeeze(0))  # (V,), (D,)
            token = logits.argmax(-1)
            tokens.append(token)
            looked.append(weights.squeeze(0))
            if token.item() == eos:
                break
        return torch.stack(tokens), torch.stack(looked)


what_is_fed_back = "b"

cache_keeps = "c"

decode_flops = 4 * 2 * 256 * 256 + 2 * 2 * 1000 * 256

uniform_perplexity = 50

beam_is_not_best = "d"

blind_decoder = "a"

residual_needs = "c"
