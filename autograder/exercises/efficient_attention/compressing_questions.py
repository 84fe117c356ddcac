"""The questions on features, mixtures, memories, spans and latents. Their text stands in the lesson."""

from __future__ import annotations

from autograder.exercises.exercise import Choice, Number, NumericSlip

__all__ = ["COMPRESSING_QUESTIONS"]

STEM = "efficient_attention"

COMPRESSING_QUESTIONS: tuple[Choice | Number, ...] = (
    Choice(
        name="factored_softmax",
        assignment=STEM,
        claim="C04",
        prompt="Why can softmax(Q K^T) V not be computed as something of Q times (something of K)^T V?",
        answer="b",
        points=1.0,
        explanations={
            "a": (
                "The division is the harmless part: linear attention divides, too, by phi(q) . z, and z is a sum "
                "over the keys made before any query is known."
            ),
            "b": (
                "Right: exp(q . k) is an infinite series of products of features. Any finite map phi only "
                "approximates it, so the keys must be kept until the query comes."
            ),
            "c": (
                "The maximum is subtracted for the sake of the arithmetic and cancels in the division. Without "
                "it the formula is the same, and still does not factor."
            ),
            "d": "softmax is differentiable everywhere. That has nothing to do with the order of the products.",
        },
        hints=(
            "What would phi have to satisfy, so that phi(q) . phi(k) = exp(q . k)?",
            "exp(t) = 1 + t + t^2 / 2 + ...: which features does the term (q . k)^2 need? And the next?",
            "How many features would be needed in all?",
        ),
    ),
    Number(
        name="linear_pays_from",
        assignment=STEM,
        claim="C04",
        prompt="D = 128, D_v = 64: the shortest S = S_q = S_k at which linear attention takes fewer multiply-adds?",
        answer=86.0,
        points=1.0,
        explanation=(
            "The two products take S^2 (D + D_v) = 192 S^2 multiply-adds in the dense order and 2 S D D_v = 16,384 S "
            "in the linear one. They are equal at S = 85.3, so that 86 is the first length at which linear takes fewer."
        ),
        slips=(
            NumericSlip(
                "rounded down",
                85.0,
                "At 85 the dense order still takes fewer. Which is the first length after?",
            ),
            NumericSlip(
                "not rounded",
                2 * 128 * 64 / 192,
                "A length is a whole number: which is the first beyond this?",
            ),
            NumericSlip("one product", 43.0, "phi(K)^T V and phi(Q) times that: are both counted?"),
            NumericSlip("key width", 128.0, "Where D = D_v it would be D. Here they differ."),
            NumericSlip("key width and one", 129.0, "Where D = D_v it would be D + 1. Here they differ."),
            NumericSlip("value width", 64.0, "Where D = D_v it would be D. Here they differ."),
            NumericSlip("size of kv", 8192.0, "This is the size of kv. What does the dense order cost?"),
        ),
        hints=(
            "Write down the two products of either order with their three sizes each.",
            "Dense: S S D and S S D_v. Linear: D S D_v and S D D_v.",
            "S (D + D_v) > 2 D D_v.",
        ),
    ),
    Number(
        name="linear_state_numbers",
        assignment=STEM,
        claim="C04",
        prompt="Numbers in the state of one layer of causal linear attention, 16 heads of width 64, after 100,000 tokens?",
        answer=66560.0,
        points=1.0,
        explanation=(
            "kv has 64 x 64 numbers and z has 64, in each of the 16 heads: 16 * (4096 + 64) = 66,560, after one token "
            "as after 100,000. A KV cache would hold 2 * 16 * 64 = 2,048 numbers for each token: as many after 33 tokens."
        ),
        slips=(
            NumericSlip("z left out", 65536.0, "Is z kept, too?"),
            NumericSlip("one head", 4160.0, "This is one head. There are 16."),
            NumericSlip("KV cache", 204_800_000.0, "This is a KV cache. Does the state grow with the text?"),
            NumericSlip(
                "for each token", 6_656_000_000.0, "Is a state kept for each token, or one that is added to?"
            ),
            NumericSlip(
                "heads merged", 1_049_600.0, "Each head has a state of its own: 64 x 64, not 1024 x 1024."
            ),
        ),
        hints=(
            "Which shapes have kv and z in one head?",
            "(D, D_v) and (D,). Does the number of tokens occur?",
            "16 * (64 * 64 + 64): the length does not occur.",
        ),
    ),
    Choice(
        name="linformer_causal",
        assignment=STEM,
        claim="C04",
        prompt="Why does low-rank attention with one E and F not serve a causal model?",
        answer="c",
        points=1.0,
        explanations={
            "a": (
                "A mask of (S_q, k) can hide mixtures, but a mixture is not a position: each holds keys of the "
                "whole text, and none of them is only past."
            ),
            "b": "Learned weights are no obstacle: those of W_k are learned, too.",
            "c": (
                "Right: the future is in every mixture before the first query looks at it. E would need a "
                "different row for each query, which is the S x S table again."
            ),
            "d": (
                "A rank below S is what is wanted, and costs quality, not causality. With k = S the mixtures "
                "would hold the future just as well."
            ),
        },
        hints=(
            "Which positions enter the first row of E K?",
            "Change the last key. Which of the k mixtures change, and which outputs?",
            "Can a mask take something out of a sum that has been added up already?",
        ),
    ),
    Choice(
        name="memory_reach",
        assignment=STEM,
        claim="C11",
        prompt="12 layers, segments of 128, a memory of 128 in each layer: how far back can information come from?",
        answer="a",
        points=1.0,
        explanations={
            "a": (
                "Right: each layer reads states of the layer below that have themselves read 128 further back. "
                "About 12 x 128 positions, although no attention spans more than 256."
            ),
            "b": "That is the reach of one layer. What it reads there has been computed from earlier positions.",
            "c": (
                "Each layer adds one memory's length and no more: what lies further back has influenced nothing "
                "that is still kept within reach."
            ),
            "d": "No gradient flows into the memory, but its numbers do: training is cut, reading is not.",
        },
        hints=(
            "What did the states in the memory of layer 2 look at when they were computed?",
            "Draw three layers and two segments, and follow the lines back from the last position.",
            "Each layer goes back one memory further.",
        ),
    ),
    Choice(
        name="span_gradient",
        assignment=STEM,
        claim="C11",
        prompt="The span's mask is made hard, m(x) = 1 for x <= z and 0 beyond. What becomes of the learned spans?",
        answer="d",
        points=1.0,
        explanations={
            "a": (
                "The mask is constant between whole numbers: the gradient with respect to z is exactly zero, "
                "not a smaller one."
            ),
            "b": "Nothing pushes a span up: the loss does not feel it. And the penalty pushes the other way.",
            "c": "A step function has derivative 0 wherever it has one; torch reports zeros (or no gradient), no error.",
            "d": (
                "Right: only the penalty is felt, and it always pulls towards zero. The ramp is there so that "
                "the loss can pull back: its slope 1 / R carries the gradient."
            ),
        },
        hints=(
            "What is the derivative of a step?",
            "The loss plus the penalty: which of the two still depends on z?",
            "And which way does the one that is left pull?",
        ),
    ),
    Number(
        name="latent_against_grouped",
        assignment=STEM,
        claim="C12",
        prompt=(
            "How many times smaller is a latent cache (512 + 64 a token) than one of 8 key/value heads of width 128, "
            "to two decimals?"
        ),
        answer=2 * 8 * 128 / 576,
        points=1.0,
        tolerance=2e-3,
        explanation=(
            "8 key/value heads of width 128 keep 2 * 8 * 128 = 2,048 numbers for each token and layer, the latent and "
            "the rotated key 576: 3.56 times fewer. Against 128 heads of their own (32,768 numbers) it would be 57 times."
        ),
        slips=(
            NumericSlip("rotated key left out", 4.0, "The rotated key of 64 numbers is kept, too."),
            NumericSlip(
                "half of it",
                1024 / 576,
                "This is half of it: GQA keeps a key and a value, and one latent serves both.",
            ),
            NumericSlip("turned round", 576 / 2048, "This is the other way round."),
        ),
        hints=(
            "What does each of the two keep for one token in one layer?",
            "2 * 8 * 128 against 512 + 64.",
            "2048 / 576, a little more than three and a half.",
        ),
    ),
    Choice(
        name="absorbed_keys",
        assignment=STEM,
        claim="C12",
        prompt="In decoding, W_uk is absorbed into the query. What does that achieve?",
        answer="b",
        points=1.0,
        explanations={
            "a": "The numbers stay the same in sum; W_uk is applied to one query instead of to all cached latents.",
            "b": (
                "Right: q . (W_uk c) = (W_uk^T q) . c. The query goes up to the latent's width once, and then meets "
                "the latents as they lie in the cache. The same holds for W_uv after the average."
            ),
            "c": (
                "Nothing has to pass through the softmax: the product q W_uk c stands inside it, and is the same "
                "number whichever way it is multiplied."
            ),
            "d": (
                "The other way round: a rotation that depends on the position stands between q and W_uk, and "
                "cannot be multiplied out. That is why DeepSeek-V2 keeps a rotated key apart."
            ),
        },
        hints=(
            "Write the score of a query q and a latent c. Which products can be done first?",
            "There is one new query, and a cache of thousands of latents. On which side should W_uk be applied?",
            "q^T (W c) = (W^T q)^T c.",
        ),
    ),
)
