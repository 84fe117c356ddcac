"""The questions of `multi_head_attention` whose answer is a letter or a number. Their text stands in the lesson."""

from __future__ import annotations

from autograder.exercises.exercise import Choice, Number, NumericSlip

__all__ = ["QUESTIONS"]

STEM = "multi_head_attention"

QUESTIONS: tuple[Choice | Number, ...] = (
    Choice(
        name="heads_split",
        assignment=STEM,
        claim="C03",
        prompt="A sequence of 12 tokens of width 512 goes through attention with 8 heads. What does one head work on?",
        answer="c",
        points=1.0,
        explanations={
            "a": (
                "Nobody cuts the sequence. A head that saw only some of the tokens could not relate the first word to "
                "the last; and 12 tokens could not even be shared out evenly among 8 heads."
            ),
            "b": (
                "Then 8 heads would cost 8 times the work of one. The heads share the width: their projections "
                "together make 512 features, 64 for each."
            ),
            "c": (
                "Right: the projected features are cut into 8 pieces of 64. Each head sees every position, through its "
                "own 64 features of query, key and value."
            ),
            "d": (
                "The cut comes after the projection, which mixes all 512 features of a token. So each head's 64 "
                "features may depend on all of them; a head is not confined to 64 of the token's own features."
            ),
        },
        hints=(
            "Look at the shapes before and after split_heads: which axis has become shorter?",
            "The lengths S_q and S_k stand in every head's table of weights. What has been divided by 8?",
            "Is the token cut before it is projected, or is the result of the projection cut?",
        ),
    ),
    Number(
        name="multi_head_parameters",
        assignment=STEM,
        claim="",
        prompt="How many parameters has MultiHeadAttention(d_model=512, num_heads=8), biases included?",
        answer=1_050_624.0,
        points=1.0,
        explanation=(
            "Four layers of 512 * 512 weights and 512 biases: 4 * (262,144 + 512) = 1,050,624. The number of heads does "
            "not occur: it only says how the projected features are cut."
        ),
        slips=(
            NumericSlip(
                "biases left out", 1_048_576.0, "This is the weights alone. How many biases are there?"
            ),
            NumericSlip(
                "three layers",
                787_968.0,
                "This is three layers. What follows when the heads have been merged again?",
            ),
            NumericSlip(
                "three layers without biases",
                786_432.0,
                "This is three layers without biases. What follows when the heads have been merged again?",
            ),
            NumericSlip(
                "times the heads",
                8_404_992.0,
                "This multiplies by the number of heads. How wide is what one head's projection makes?",
            ),
            NumericSlip(
                "times the heads without biases",
                8_388_608.0,
                "This multiplies by the number of heads. How wide is what one head's projection makes?",
            ),
            NumericSlip(
                "square heads",
                131_072.0,
                "This takes 64 by 64 for each head's layers. How many features does a head's projection read?",
            ),
            NumericSlip("one layer", 262_656.0, "This is one layer. How many are there?"),
        ),
        hints=(
            "Which layers hold the parameters? Do the heads have any besides them?",
            "q_proj, k_proj, v_proj and out_proj are nn.Linear(512, 512). What does one of them hold?",
            "4 * (512 * 512 + 512).",
        ),
    ),
    Choice(
        name="attention_saves_work",
        assignment=STEM,
        claim="C04",
        prompt=(
            "A layer of dense self-attention over S tokens of width d_model goes from 1 head to 8, d_model unchanged. What "
            "happens to its cost?"
        ),
        answer="b",
        points=1.0,
        explanations={
            "a": (
                "Weights near zero are computed like all others: every score, then softmax, then a product with every "
                "value. What leaves pairs out are sparse forms of attention, which decide beforehand which to skip."
            ),
            "b": (
                "Right: 8 tables of S^2 scores with vectors of an eighth of the width are as many multiply-adds as one "
                "table with the full width. But each head's table has S^2 entries, so there are 8 times as many weights."
            ),
            "c": (
                "Each head's vectors are an eighth as wide, so its scores cost an eighth. Eight times an eighth: the "
                "operations of the products stay the same."
            ),
            "d": (
                "The work is quadratic in S whatever the number of heads: the sequence is not cut, each head compares all "
                "positions with all positions."
            ),
        },
        hints=(
            "How many scores has one head, and how many multiply-adds does each of them take?",
            "H tables of S^2 scores, each a sum of d_model / H products. Now count the scores, and count the products.",
            "One of the two counts has an H in it, the other has not.",
        ),
    ),
    Number(
        name="stored_weights",
        assignment=STEM,
        claim="C04",
        prompt=(
            "How many bytes do the weights of one layer take if they are stored: 8 sequences of 1024 tokens, 12 heads, "
            "float16?"
        ),
        answer=201_326_592.0,
        points=1.0,
        explanation=(
            "8 * 12 tables of 1024 * 1024 weights of 2 bytes: 201,326,592 bytes, or 192 MiB, for one layer. This is what "
            "fused kernels avoid writing to memory."
        ),
        slips=(
            NumericSlip(
                "heads left out", 16_777_216.0, "This leaves the heads out. Has each a table of its own?"
            ),
            NumericSlip("batch left out", 25_165_824.0, "This is one sequence. There are 8."),
            NumericSlip(
                "one table",
                2_097_152.0,
                "This is one head's table of one sequence. How many tables are there?",
            ),
            NumericSlip(
                "numbers not bytes", 100_663_296.0, "This is the number of weights. How many bytes has each?"
            ),
            NumericSlip(
                "float32", 402_653_184.0, "This takes 4 bytes for each weight. How many does float16 take?"
            ),
            NumericSlip(
                "linear in length",
                196_608.0,
                "This takes one weight for each position. A weight belongs to a pair.",
            ),
            NumericSlip("bits", 1_610_612_736.0, "This is bits. How many bytes are that?"),
        ),
        hints=(
            "How many weights does one head have for one sequence?",
            "One table of S by S for each head and each sequence. What does one float16 number take?",
            "8 * 12 * 1024 * 1024 * 2.",
        ),
    ),
    Choice(
        name="when_heads_help",
        assignment=STEM,
        claim="C03",
        prompt="When can several heads do what one head of the same total width cannot?",
        answer="a",
        points=1.0,
        explanations={
            "a": (
                "Right: one head makes one average per query. If a token needs two things from two places, the average "
                "mixes them and nothing tells which came from where; two heads hand both over side by side."
            ),
            "b": (
                "Length is no reason: one head sees all positions too, at the same distance of one step. More heads give "
                "each a narrower vector for telling positions apart."
            ),
            "c": (
                "The parameters are the same, whatever the number of heads: the four layers are as large as before. What "
                "changes is how their result is cut."
            ),
            "d": (
                "Each head's vectors get narrower, and a head of width 1 can compare hardly anything. In the original "
                "paper both 1 and 32 heads translated worse than 8."
            ),
        },
        hints=(
            "How many averages does one head make for one query?",
            "In the picture of trained heads, what did the model with one head fail at?",
            "Think of a token that needs the token before it and the first token of the line, each in its place.",
        ),
    ),
    Choice(
        name="norm_order",
        assignment=STEM,
        claim="E18",
        prompt="Which of these is a pre-norm block, A being attention, F the feed-forward network and N1, N2 the norms?",
        answer="d",
        points=1.0,
        explanations={
            "a": (
                "This is post-norm, the order of the first paper: the norm stands on the sum, so the path of x through "
                "many blocks meets a norm at each of them."
            ),
            "b": (
                "This is half of each: post-norm at the attention, pre-norm at the feed-forward network. It trains, but "
                "it is neither paper's block, and weights of neither fit it."
            ),
            "c": (
                "Here x is added twice, once inside the bracket and once outside: the skip path doubles x at each block."
            ),
            "d": (
                "Right: each step reads norm(x), and its result is added to x itself. From the first block to the last "
                "runs a path that meets no norm; one more norm usually follows the last block."
            ),
        },
        hints=(
            "Pre-norm: where does the norm stand, before or after the step?",
            "What is added in pre-norm is x as it came, and only once.",
            "x + A(N1(x)): look for the option that does this in both steps.",
        ),
    ),
)
