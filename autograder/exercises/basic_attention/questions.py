"""The questions of `basic_attention` whose answer is a letter or a number. Their text stands in the lesson."""

from __future__ import annotations

from autograder.exercises.exercise import Choice, Number, NumericSlip

__all__ = ["QUESTIONS"]

STEM = "basic_attention"

QUESTIONS: tuple[Choice | Number, ...] = (
    Choice(
        name="mask_placement",
        assignment=STEM,
        claim="E03, E10",
        prompt=(
            "Where does the mask go, so that forbidden keys weigh exactly zero and a forbidden score "
            "influences nothing?"
        ),
        answer="b",
        points=1.0,
        explanations={
            "a": (
                "The forbidden scores are still in the softmax's denominator: the allowed weights sum to "
                "less than one, and they change when a forbidden score changes. In a generator the future "
                "leaks into the past."
            ),
            "b": (
                "Right. exp(-inf) is 0, so a forbidden key drops out of numerator and denominator alike, "
                "and the allowed weights sum to one. Only rows without any allowed key need a rule of "
                "their own: zero."
            ),
            "c": (
                "A score of 0 is not a weight of 0: exp(0) = 1. The forbidden key keeps weight, and where "
                "the allowed scores are negative it even gets the largest."
            ),
            "d": (
                "The forbidden keys still take their share of the weights, so the allowed ones sum to "
                "less than one, and the output shrinks towards zero by a share that depends on the "
                "forbidden scores."
            ),
        },
        hints=(
            "Softmax divides by a sum. Which keys should be in that sum?",
            (
                "A forbidden key must be absent from numerator and denominator. Which score makes exp "
                "exactly zero?"
            ),
            "It has to happen before the softmax, and zero is the wrong number, because exp(0) = 1.",
        ),
    ),
    Choice(
        name="multiplicative_kind",
        assignment=STEM,
        claim="C06",
        prompt="What is the multiplicative ('general') score of Luong et al. for one query and one key?",
        answer="d",
        points=1.0,
        explanations={
            "a": (
                "The elementwise product is a vector of width D, not a number, and it has nothing to "
                "learn. Summed up it is the plain dot product, the special case W = I."
            ),
            "b": "That is the cosine score. It has no parameters, and it needs equal widths.",
            "c": (
                "One learned number changes the temperature only. It cannot compare different features "
                "with each other, and it still needs equal widths."
            ),
            "d": (
                "Right: q W k with a learned W of shape (d_query, d_key). Any feature of the query may "
                "meet any feature of the key, and the widths may differ."
            ),
        },
        hints=(
            (
                "A score is one number for a pair. Which of the options give one number, and which of "
                "them can learn?"
            ),
            ("Luong's score also works when query and key have different widths. Which option allows that?"),
            "You need something of shape (d_query, d_key) between the two.",
        ),
    ),
    Choice(
        name="additive_kind",
        assignment=STEM,
        claim="C07",
        prompt="What is the additive score of Bahdanau et al. for one query and one key?",
        answer="a",
        points=1.0,
        explanations={
            "a": (
                "Right: v . tanh(W_q q + W_k k). The tanh makes query and key interact; without it the "
                "query cancels in the softmax."
            ),
            "b": (
                "Without a nonlinearity the query adds the same number to the scores of all keys. Softmax "
                "sees differences only, so the query would have no influence on the weights."
            ),
            "c": (
                "The softmax runs over the keys, not over the features, and a score has to be one number "
                "per pair; this is a vector. Nothing is learned either."
            ),
            "d": (
                "That is a squashed dot product: it has no parameters, and it needs equal widths. In "
                "Bahdanau's score the tanh acts on a hidden vector, before the learned read-out."
            ),
        },
        hints=(
            (
                "Look at the last column of the picture of score functions: what happens to the query's "
                "influence?"
            ),
            (
                "Shift invariance removes whatever is the same for all keys. What stops the query's term "
                "from being removed?"
            ),
            "It is a network with one hidden layer; a vector v reads the hidden layer out.",
        ),
    ),
    Number(
        name="score_variance",
        assignment=STEM,
        claim="C02, E19",
        prompt="Variance of the dot product of two vectors of 64 independent N(0, 1) entries?",
        answer=64.0,
        points=1.0,
        explanation=(
            "Each product has mean 0 and variance E[q^2] E[k^2] = 1. The 64 products are independent, so "
            "their variances add to 64; the standard deviation is 8."
        ),
        slips=(
            NumericSlip(
                "standard deviation",
                8.0,
                "8 is the square root of 64: is that the standard deviation instead of the variance?",
            ),
            NumericSlip(
                "already scaled",
                1.0,
                (
                    "1 is the variance after dividing by sqrt(64), or that of a single product. Did you add "
                    "up all 64 of them, unscaled?"
                ),
            ),
            NumericSlip(
                "variances added not multiplied",
                128.0,
                (
                    "128 = 64 * 2: did you add the two variances in each product? For independent entries of "
                    "mean 0, Var(q k) is their product, 1 * 1."
                ),
            ),
            NumericSlip(
                "width squared",
                4096.0,
                (
                    "4096 = 64 * 64: did you square the width? Variances of independent terms add; only a "
                    "factor in front of a variable gets squared."
                ),
            ),
            NumericSlip("mean", 0.0, "0 is the mean of the dot product. What is the mean of its square?"),
            NumericSlip(
                "divided by width",
                0.015625,
                (
                    "1/64 is the variance after dividing by D. Nothing has been divided yet; what is the "
                    "variance of the plain sum?"
                ),
            ),
            NumericSlip(
                "scale factor",
                0.125,
                "1/8 is the factor 1/sqrt(64) itself. Which variance does that factor bring back to 1?",
            ),
        ),
        hints=(
            "Begin with a single product of two independent N(0, 1) numbers. What is its variance?",
            (
                "Its mean is 0, so its variance is E[q^2 k^2] = E[q^2] E[k^2]. The dot product is a sum "
                "of 64 such terms."
            ),
            "One term has variance 1, and variances of independent terms add.",
        ),
    ),
    Choice(
        name="why_scale",
        assignment=STEM,
        claim="C02, E19",
        prompt="Why are dot products divided by the square root of D?",
        answer="c",
        points=1.0,
        explanations={
            "a": (
                "It is the other way round. Large D makes the scores large and the weights too peaked, "
                "not too even; and dividing by sqrt(D) makes them flatter, not sharper."
            ),
            "b": (
                "Cosines come from dividing by both norms, which differ from pair to pair. sqrt(D) is one "
                "constant, and scaled scores may well exceed 1."
            ),
            "c": (
                "Right: for independent entries of unit variance the dot product has variance D. Divided "
                "by sqrt(D) it has variance 1, and the softmax keeps a useful gradient at every width."
            ),
            "d": (
                "Overflow is prevented by subtracting the row's maximum. An unscaled softmax done that "
                "way is finite, and still saturated."
            ),
        },
        hints=(
            ("What does the slider show when you make D larger: do the raw scores get larger or smaller?"),
            "Large scores mean a low temperature. Are the weights then too even or too peaked?",
            "The variance of the dot product is D. Look for the option that says so.",
        ),
    ),
    Number(
        name="attention_flops",
        assignment=STEM,
        claim="C01, C04",
        prompt=(
            "Floating-point operations of the two matrix products for S_q = 128, S_k = 512, D = 64, D_v = "
            "48, one multiply-add counted as two?"
        ),
        answer=14680064.0,
        points=2.0,
        explanation=(
            "Query times key: 128 * 512 scores of 64 multiply-adds. Weights times value: 128 * 48 outputs "
            "of 512 multiply-adds. Together 2 * 128 * 512 * (64 + 48) = 14,680,064."
        ),
        slips=(
            NumericSlip(
                "multiply adds",
                7340032.0,
                ("This is half of it: did you count a multiply-add as one operation? Here it counts as two."),
            ),
            NumericSlip(
                "scores only", 8388608.0, "This is query times key alone. What does weights times value cost?"
            ),
            NumericSlip(
                "values only", 6291456.0, "This is weights times value alone. What do the scores cost?"
            ),
            NumericSlip(
                "scores only multiply adds",
                4194304.0,
                (
                    "This is query times key alone, in multiply-adds. What about weights times value, and two "
                    "operations for each multiply-add?"
                ),
            ),
            NumericSlip(
                "value width is key width",
                16777216.0,
                "This takes D twice. Is the value as wide as the key here?",
            ),
            NumericSlip(
                "key width is value width",
                12582912.0,
                "This takes D_v twice. Which width do query and key have?",
            ),
            NumericSlip(
                "keys counted as queries",
                3670016.0,
                "This takes S_q squared. How many keys does each query meet?",
            ),
            NumericSlip(
                "queries counted as keys", 58720256.0, "This takes S_k squared. How many queries are there?"
            ),
            NumericSlip(
                "widths multiplied",
                402653184.0,
                (
                    "This multiplies D by D_v. The two products run one after the other: do their costs "
                    "multiply or add?"
                ),
            ),
            NumericSlip("lengths added", 143360.0, "This adds the lengths. Does every query meet every key?"),
            NumericSlip(
                "number of scores",
                65536.0,
                "This is the number of scores. What does one of them cost, and one output?",
            ),
        ),
        hints=(
            (
                "A product of an (m, n) and an (n, p) matrix takes m n p multiply-adds. Which two "
                "products does attention have?"
            ),
            (
                "(128, 64) times (64, 512), then (128, 512) times (512, 48). Add them, and count each "
                "multiply-add as two."
            ),
            "2 * 128 * 512 * (the two widths, added).",
        ),
    ),
    Choice(
        name="dot_product_cost",
        assignment=STEM,
        claim="C01, C04",
        prompt=(
            "How does the time for all the dot-product scores of S_q queries and S_k keys of width D grow?"
        ),
        answer="d",
        points=1.0,
        explanations={
            "a": (
                "O(1) is the path length: any two positions are one step apart. The work is one dot "
                "product of D terms for each of the S_q S_k pairs."
            ),
            "b": (
                "Every query and key is needed for many pairs, not once. Reading them is O((S_q + S_k) "
                "D); the products are S_q S_k D."
            ),
            "c": (
                "S_q S_k is the number of scores, and the memory they take. Each of them costs D "
                "multiply-adds, also on hardware that does many at once."
            ),
            "d": (
                "Right: S_q S_k pairs, D multiply-adds each. For self-attention that is quadratic in the "
                "length, as the counted operations show."
            ),
        },
        hints=(
            "How many scores are there, and what does one of them cost?",
            "The counted operations grow fourfold when S doubles. Which options grow like that?",
            "S_q S_k scores, each a sum of D products.",
        ),
    ),
    Choice(
        name="distant_positions",
        assignment=STEM,
        claim="C11",
        prompt="Can a token make use of another that stands 10,000 positions before it?",
        answer="b",
        points=1.0,
        explanations={
            "a": (
                "The score depends on the content of query and key; distance does not enter, unless a "
                "positional encoding brings it in. Fading step by step is what a recurrent network does."
            ),
            "b": (
                "Right: one step if both are in the context. What limits it is work and memory quadratic "
                "in length, the context's size, and whether training gives the far key a score that "
                "stands out among so many."
            ),
            "c": (
                "A short path is not a small amount of work. To have every position one step away, every "
                "pair has to be scored: S_q S_k D."
            ),
            "d": (
                "That describes convolutions, or attention in a local window. One layer of dense "
                "attention links every pair of positions."
            ),
        },
        hints=(
            "Separate two things: the number of steps between two positions, and the total work.",
            (
                "In the last cell of that section, did the position of the matching key change its "
                "weight? Did the number of keys?"
            ),
            "The path is one step; the price is quadratic. Which option says both?",
        ),
    ),
    Choice(
        name="weights_explain",
        assignment=STEM,
        claim="C05",
        prompt=(
            "One attention layer of a sentiment classifier puts weight 0.8 on the word 'awful'. What may "
            "you conclude?"
        ),
        answer="a",
        points=1.0,
        explanations={
            "a": (
                "Right: the weight says what this layer mixes. Whether the word caused the verdict is "
                "another question, answered by an intervention such as masking it (Jain & Wallace 2019; "
                "Wiegreffe & Pinter 2019)."
            ),
            "b": (
                "Weights sum to one, but contributions to a decision do not follow from them: the values' "
                "sizes, the other layers and the skip connections all count. The cell above had a key of "
                "weight 0.14 that mattered far more than one of 0.51."
            ),
            "c": (
                "That reads too much into Jain & Wallace. Wiegreffe & Pinter show settings in which "
                "attention weights are informative. What is missing is a test, not all meaning."
            ),
            "d": (
                "Very different weights can give the same output, as the bars show. A heat map is a "
                "hypothesis about the reason, not the reason."
            ),
        },
        hints=(
            "What do the weights determine for certain, and what happens to that average afterwards?",
            (
                "Two sets of weights gave the same output. Can the weights then be the reason? Does that "
                "make them worthless?"
            ),
            "Look for the option that claims only what the layer does, and asks for a test.",
        ),
    ),
)
