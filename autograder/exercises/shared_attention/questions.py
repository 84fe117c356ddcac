"""The questions of `shared_attention` whose answer is a letter or a number. Their text stands in the lesson."""

from __future__ import annotations

from autograder.exercises.exercise import Choice, Number, NumericSlip

__all__ = ["QUESTIONS"]

STEM = "shared_attention"

QUESTIONS: tuple[Choice | Number, ...] = (
    Choice(
        name="unused_keys",
        assignment=STEM,
        claim="E04",
        prompt="scores = query @ weight, softmax, average of the values: what is wrong with it?",
        answer="a",
        points=1.0,
        explanations={
            "a": (
                "Right: no key enters the scores. Replace all keys and nothing changes; and as the matrix needs "
                "one column for each key, it works for one length only."
            ),
            "b": (
                "Parameters are the same for every input. They cannot contain the keys of a sentence that has "
                "yet to be read, so the weights would be the same whatever is in it."
            ),
            "c": (
                "A factor changes how peaked the weights are. It does not bring the keys in: with any factor, "
                "replacing all keys still changes nothing."
            ),
            "d": (
                "The axis is right: one number for each value, summing to one. What is missing is not the "
                "normalisation but what is normalised."
            ),
        },
        hints=(
            "Read the formula once more, and tick off each of query, key, value and weight.",
            "Suppose all keys are exchanged for others. Which of the numbers computed here change?",
            "A score says how well a query matches a key. Which of the two is missing?",
        ),
    ),
    Choice(
        name="weight_shape",
        assignment=STEM,
        claim="E05",
        prompt="Which shape has the shared matrix for queries of width 3 and five keys of width 1?",
        answer="c",
        points=1.0,
        explanations={
            "a": (
                "A query of width 3 cannot be multiplied by a matrix of two rows: PyTorch refuses. Nothing here "
                "has the width 2."
            ),
            "b": (
                "That turns a query of width 3 into another of width 3, which still does not fit a key of width 1."
            ),
            "c": (
                "Right: (D_q, D_k). It takes a query of width D_q on the left and a key of width D_k on the "
                "right, and does not depend on the number of keys."
            ),
            "d": (
                "Five is the number of keys, not their width. A matrix with one column for each key could be "
                "used for sequences of that length only, and it would leave the keys out."
            ),
        },
        hints=(
            "Write the shapes under q W k: (1, 3), (?, ?), (1, 1).",
            "The inner sizes of a matrix product must agree. What stands left of W, and what right of it?",
            "Lengths never occur in a weight's shape, only widths.",
        ),
    ),
    Choice(
        name="symmetric_limit",
        assignment=STEM,
        claim="C12",
        prompt="One projection makes the queries and the keys. What can such a layer not express?",
        answer="d",
        points=1.0,
        explanations={
            "a": (
                "On the contrary: the score of a position with itself is the squared length of its vector, and "
                "the largest score of the whole table always lies on the diagonal."
            ),
            "b": (
                "The weights may well differ: each row is divided by a sum of its own. Only the scores are "
                "symmetric."
            ),
            "c": (
                "The scores still depend on what stands at both positions; the projection is learned, and "
                "similar vectors match."
            ),
            "d": (
                "Right: s_ij = s_ji. A noun that should look for its adjective, while the adjective does not "
                "look for the noun, needs two different projections."
            ),
        },
        hints=(
            "The score is p_i . p_j. What happens if i and j change places?",
            "Keep the scores apart from the weights: a softmax along each row comes between them.",
            "What is equal in both directions cannot tell the directions apart.",
        ),
    ),
    Number(
        name="saved_parameters",
        assignment=STEM,
        claim="C12",
        prompt="Parameters saved in a layer of width 4096 by 8 instead of 32 key and value heads, no bias?",
        answer=25165824.0,
        points=1.0,
        explanation=(
            "A head is 4096 / 32 = 128 wide. k_proj and v_proj shrink from 4096 x 4096 to 4096 x 1024 each: "
            "2 * 4096 * (4096 - 1024) = 25,165,824. That is 37.5 % of the layer's 4 * 4096^2."
        ),
        slips=(
            NumericSlip(
                "one layer only", 12582912.0, "This is one of the two layers. Do keys and values both shrink?"
            ),
            NumericSlip(
                "what is left",
                41943040.0,
                "This is what the layer still has. The question is how many are saved.",
            ),
            NumericSlip("before", 67108864.0, "This is the whole layer before sharing: 4 * 4096^2."),
            NumericSlip(
                "three quarters of all",
                50331648.0,
                "This is three quarters of the layer. Do q_proj and out_proj shrink, too?",
            ),
            NumericSlip(
                "what is left of two",
                8388608.0,
                "This is what k_proj and v_proj still have. How many had they before?",
            ),
            NumericSlip(
                "heads counted as width",
                196608.0,
                "This takes 24 heads as 24 columns. How wide is one head?",
            ),
        ),
        hints=(
            "Which of the four layers shrink, and how wide is one head?",
            "A head is 128 wide. k_proj goes from 4096 columns to 8 * 128; v_proj, too.",
            "2 layers * 4096 * (32 - 8) heads * 128.",
        ),
    ),
    Number(
        name="cache_bytes",
        assignment=STEM,
        claim="C12",
        prompt="Bytes of the cache for one sequence of 8192 tokens, 32 layers, 8 key/value heads of width 128, bfloat16?",
        answer=1073741824.0,
        points=1.0,
        explanation=(
            "2 (key and value) * 32 layers * 8192 tokens * 8 heads * 128 numbers * 2 bytes = 1,073,741,824: one "
            "GiB. With a key and value head for each of 32 query heads it would be 4 GiB, with one for all 128 MiB."
        ),
        slips=(
            NumericSlip("values left out", 536870912.0, "This is half of it: are the values kept, too?"),
            NumericSlip("four bytes", 2147483648.0, "This takes four bytes a number. How many has bfloat16?"),
            NumericSlip(
                "numbers of one kind",
                268435456.0,
                "This is a quarter: are keys and values counted, and two bytes for each number?",
            ),
            NumericSlip("layers left out", 33554432.0, "This is one layer. Each layer keeps its own."),
            NumericSlip("heads left out", 134217728.0, "This is one head. There are eight."),
            NumericSlip("width left out", 8388608.0, "A key is a vector. How wide is it?"),
            NumericSlip("gibibytes", 1.0, "One GiB it is. How many bytes are that?"),
        ),
        hints=(
            "What is kept for one token in one layer?",
            "8 heads, a key and a value of width 128 each, two bytes a number. Then tokens and layers.",
            "2 * 32 * 8192 * 8 * 128 * 2.",
        ),
    ),
    Choice(
        name="gqa_saves",
        assignment=STEM,
        claim="C12",
        prompt="32 query heads share 8 key/value heads instead of having one each. What becomes four times smaller?",
        answer="b",
        points=1.0,
        explanations={
            "a": (
                "Every query head still scores every key: the same number of products of the same width. Only "
                "the projections of keys and values take less work."
            ),
            "b": (
                "Right: the cache holds num_kv_heads keys and values a token. A step of generation reads all of "
                "it, so that it is also what sets the pace at long contexts."
            ),
            "c": (
                "Only k_proj and v_proj shrink. q_proj and out_proj stay, so that the layer keeps 62.5 % of its "
                "parameters, not 25 %."
            ),
            "d": (
                "There is still one table of weights for each query head, (S_q, S_k) each: as many as before."
            ),
        },
        hints=(
            "For each option ask: does its size depend on num_heads or on num_kv_heads?",
            "Scores and weights belong to query heads. What belongs to key and value heads?",
            "It is kept from one generated token to the next.",
        ),
    ),
    Number(
        name="shared_gradient",
        assignment=STEM,
        claim="C12",
        prompt="The layer x -> w x, stacked three deep with the same w = 2, on x = 5: derivative of the output by w?",
        answer=60.0,
        points=1.0,
        explanation=(
            "The output is w^3 x, its derivative 3 w^2 x = 3 * 4 * 5 = 60. Each of the three uses contributes "
            "w^2 x = 20, and the contributions add up."
        ),
        slips=(
            NumericSlip(
                "one use",
                20.0,
                "This is the contribution of one use, or the mean of three. The uses add up.",
            ),
            NumericSlip("the output", 40.0, "This is the output, w^3 x. What is its derivative by w?"),
            NumericSlip("by x", 8.0, "This is the derivative by x. The question is about w."),
            NumericSlip("one layer", 5.0, "This is the derivative of a single layer. There are three."),
            NumericSlip(
                "layers not chained", 15.0, "This is 3 x. Does the chain rule bring in the other layers?"
            ),
            NumericSlip(
                "w not squared", 30.0, "This is 3 w x. How many other factors w stand beside each one?"
            ),
        ),
        hints=(
            "Write the output as a formula of w and x.",
            "It is w * w * w * x. Differentiate each of the three factors in turn.",
            "The derivative of w^3 x by w is 3 w^2 x.",
        ),
    ),
    Choice(
        name="sharing_quality",
        assignment=STEM,
        claim="C12",
        prompt="Sharing makes heads, layers or tasks consistent, and so the model better: true?",
        answer="c",
        points=1.0,
        explanations={
            "a": (
                "Measured at equal size otherwise, models with shared key/value heads come out a little worse, "
                "not better. Consistency is no aim in itself: heads are useful because they differ."
            ),
            "b": (
                "It does change something: fewer parameters can express less. Multi-query attention loses "
                "visibly more than grouped attention, which loses little."
            ),
            "c": (
                "Right: Shazeer 2019 reports slightly worse quality for far faster generation, Ainslie et al. "
                "2023 that groups recover most of it. Between tasks it can go either way, and has to be measured."
            ),
            "d": (
                "A layer used twelve times costs as much work as twelve layers: the parameters are shared, the "
                "operations are not."
            ),
        },
        hints=(
            "What does a constraint on the parameters do to the set of functions that a model can express?",
            "Think of the three columns of a table: parameters, work, quality. Which go down?",
            "It is a trade: what is bought, and what is paid for it?",
        ),
    ),
)
