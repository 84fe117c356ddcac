"""The questions of `text_generation` whose answer is a letter or a number. Their text stands in the lesson."""

from __future__ import annotations

from autograder.exercises.exercise import Choice, Number, NumericSlip

__all__ = ["QUESTIONS"]

STEM = "text_generation"

QUESTIONS: tuple[Choice | Number, ...] = (
    Choice(
        name="what_is_fed_back",
        assignment=STEM,
        claim="E09, E28",
        prompt="What makes a generator autoregressive?",
        answer="b",
        points=1.0,
        explanations={
            "a": (
                "Then the output is as long as the input, there is nothing to stop at, and no output depends on another. "
                "That is a tagger, not a generator."
            ),
            "b": (
                "Right: p(text) is the product of p(token t | tokens before t). What is chosen becomes input; nothing else "
                "makes the next step differ from this one."
            ),
            "c": (
                "Randomness makes texts differ from run to run. Greedy decoding has none, and is autoregressive all the same; "
                "a generator that feeds nothing back draws from the same distribution at every step."
            ),
            "d": (
                "A causal mask lets training predict all positions at once without looking ahead. Without feeding its own "
                "tokens back, a masked model still writes only one token."
            ),
        },
        hints=(
            "Run the loop in your head twice. What is different in the second round?",
            "Factorise the probability of a text into conditional probabilities. What stands behind each bar?",
            "Each token depends on those before it, so the model must be given them, its own ones included.",
        ),
    ),
    Choice(
        name="blind_decoder",
        assignment=STEM,
        claim="E07",
        prompt="What does a decoder need at the least, to write a text with an encoder and attention?",
        answer="a",
        points=1.0,
        explanations={
            "a": (
                "Right: logits over a vocabulary, a rule that chooses a token from them, the chosen token as next input, and "
                "queries of its own, with which it reads the encoder's states."
            ),
            "b": (
                "A linear layer that is used once gives one vector. It is no distribution over words, nothing chooses a word, "
                "and there is no second step."
            ),
            "c": (
                "Then the decoder asks nothing: keys say what can be found, queries what is looked for. The keys and the "
                "values come from the encoder, the query from the decoder's state."
            ),
            "d": "The last state alone is the bottleneck of fixed size that attention was invented to remove.",
        },
        hints=(
            "A text is a row of words from a list. Which of the options ever produces a word?",
            "Who asks, and who answers, in encoder-decoder attention?",
            "It must score every word of a vocabulary, choose one, and start again with it.",
        ),
    ),
    Number(
        name="uniform_perplexity",
        assignment=STEM,
        claim="perplexity",
        prompt="Perplexity of a model that gives each of 50 tokens the same probability, whatever the text.",
        answer=50.0,
        points=1.0,
        explanation="Right: the loss is log 50 at every token, and exp(log 50) = 50. Perplexity counts equally likely choices.",
        slips=(
            NumericSlip(
                "the loss, not the perplexity", 3.912023005428146, "log 50 is the loss in nats. And its exp?"
            ),
            NumericSlip("bits", 5.643856189774724, "log2 50 is the loss in bits. And 2 to that power?"),
            NumericSlip(
                "a probability", 0.02, "1/50 is the probability of a token; the perplexity is at least 1."
            ),
        ),
        hints=(
            "What is the probability of the right token, and its negative logarithm?",
            "The mean of equal numbers is that number. Then exp.",
            "The loss is -log(1/50) at every token; what is exp of that?",
        ),
    ),
    Choice(
        name="cache_keeps",
        assignment=STEM,
        claim="KV cache",
        prompt="What does a KV cache keep, and why is it right to keep it?",
        answer="c",
        points=1.0,
        explanations={
            "a": (
                "An old query has done its work: its output was computed when its token was new. Only the newest token asks."
            ),
            "b": (
                "The weights of an old row never change, but the new row needs weights of its own, over all keys; without "
                "the keys they cannot be computed."
            ),
            "c": (
                "Right: under a causal mask a position depends only on earlier ones, so its key and value in every layer are "
                "final. The new token needs them all, and nothing else of the past."
            ),
            "d": (
                "The tokens are needed, but they are what is recomputed from without a cache: every layer, for every position, "
                "at every step."
            ),
        },
        hints=(
            "Write down what the output of the newest position is computed from.",
            "softmax(q K^T) V: which of the three come from earlier positions?",
            "Only the newest query is needed, but every key and every value. Why do those not change?",
        ),
    ),
    Number(
        name="decode_flops",
        assignment=STEM,
        claim="cost of a step",
        prompt="Floating-point operations of one cached decoding step: d_model 256, 999 positions remembered, one new.",
        answer=1_548_288.0,
        points=1.0,
        explanation=(
            "Right: four projections of one vector, 4 x 2 x 256^2 = 524,288, and 2 x 2 x 1000 x 256 = 1,024,000 for scores "
            "and weighted values over 1000 keys, its own included."
        ),
        slips=(
            NumericSlip("multiply-adds count once", 774_144.0, "A multiply-add is two operations."),
            NumericSlip(
                "without the projections", 1_024_000.0, "Four projections of the new position come on top."
            ),
            NumericSlip("without the new key", 1_547_264.0, "The new position sees itself, too: 1000 keys."),
            NumericSlip(
                "the full pass", 1_548_288_000.0, "That is the cost of the whole text of 1000 positions."
            ),
            NumericSlip(
                "scores without values",
                1_036_288.0,
                "Scores and weighted values cost the same. Are both counted?",
            ),
            NumericSlip("three projections", 1_417_216.0, "q_proj, k_proj, v_proj and out_proj."),
        ),
        hints=(
            "Only one position is projected. How many keys does its query meet?",
            "A product of a vector with a 256 x 256 matrix takes 2 x 256 x 256 operations; there are four of them.",
            "Scores: 2 x 1000 x 256. Weighted values: the same. Then add the projections.",
        ),
    ),
    Choice(
        name="beam_is_not_best",
        assignment=STEM,
        claim="beam search",
        prompt="What does beam search with four beams return?",
        answer="d",
        points=1.0,
        explanations={
            "a": (
                "It prunes: a beginning that drops out of the beam is lost, however well it would have gone on. Only a beam "
                "that holds every beginning finds the most likely text for certain."
            ),
            "b": (
                "A wider beam finds texts of higher probability as a rule, but those are often shorter and duller; translation "
                "gets worse beyond small beams (Koehn and Knowles 2017)."
            ),
            "c": "Nothing is drawn: the same model and prompt give the same text every time.",
            "d": (
                "Right: a text of high probability among those whose every beginning stayed among the four best. It costs four "
                "times greedy search, and it favours short texts unless the score is corrected for length."
            ),
        },
        hints=(
            "When is a beginning thrown away? Can it be that it would have led to the best text?",
            "Each further token makes a text less likely. Whom does that favour?",
            "It is a heuristic without chance: what is certain is only that the beginnings stayed in the beam.",
        ),
    ),
    Choice(
        name="residual_needs",
        assignment=STEM,
        claim="E27",
        prompt="context = attention(Q, K, V) + H. When is this sum defined, and when is it a residual connection?",
        answer="c",
        points=1.0,
        explanations={
            "a": "Matrices of different shapes have no sum; broadcasting would only hide that some do not fit.",
            "b": "The keys' length has gone into the average: the output has one row for each query, and so must H.",
            "c": (
                "Right: the output has Q's rows and V's width. It is a residual connection if H is the input that the "
                "queries were made from, and widths agree, by an output projection if need be."
            ),
            "d": (
                "That is the special case of self-attention with equal widths. In encoder-decoder attention H is the decoder's "
                "state, and not the values."
            ),
        },
        hints=(
            "What shape does attention(Q, K, V) have, for S_q queries, S_k keys, and values of width D_v?",
            "A sum needs equal shapes. Which of the inputs has S_q rows?",
            "A residual connection adds a layer's input to its output. From which input do the queries come?",
        ),
    ),
)
