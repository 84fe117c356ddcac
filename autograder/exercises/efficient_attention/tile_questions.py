"""The questions on dense, chunked, windowed and block-sparse attention. Their text stands in the lesson."""

from __future__ import annotations

from autograder.exercises.exercise import Choice, Number, NumericSlip

__all__ = ["TILE_QUESTIONS"]

STEM = "efficient_attention"

TILE_QUESTIONS: tuple[Choice | Number, ...] = (
    Choice(
        name="dense_cost",
        assignment=STEM,
        claim="C04",
        prompt="The text becomes four times as long. What happens to the work of one dense attention?",
        answer="c",
        points=1.0,
        explanations={
            "a": (
                "Attention weighs what matters, but to know what matters it scores every pair first. Nothing is "
                "skipped, however small the weight turns out to be."
            ),
            "b": (
                "Linear is the projections' share of the work: each token is projected once. The scores are one "
                "for each pair of tokens."
            ),
            "c": (
                "Right: four times as many queries, each against four times as many keys. Dense attention "
                "reduces the path between two positions to one step; it does not reduce computation."
            ),
            "d": (
                "The number of pairs is the length to the power of two, not of three. A third factor, the width, "
                "does not change with the length."
            ),
        },
        hints=(
            "How many scores are there for S queries and S keys?",
            "The last cell of the measurement doubles the length. By which factor do its numbers grow?",
            "The number of pairs is S times S. Four times S gives what?",
        ),
    ),
    Number(
        name="weights_memory",
        assignment=STEM,
        claim="C04",
        prompt="Bytes of the attention weights of one layer: 32 heads, 16,384 tokens, bfloat16, one sequence?",
        answer=17179869184.0,
        points=1.0,
        explanation=(
            "32 heads times 16,384^2 pairs times 2 bytes are 2^5 * 2^28 * 2 = 2^34 = 17,179,869,184 bytes: 16 GiB, "
            "for a single layer and a single sequence. Keys and values of the same layer, at 128 numbers a head, "
            "take 256 MiB."
        ),
        slips=(
            NumericSlip("one head", 536870912.0, "This is one head. How many tables are there?"),
            NumericSlip(
                "numbers not bytes", 8589934592.0, "This counts numbers. How many bytes has a bfloat16?"
            ),
            NumericSlip("four bytes", 34359738368.0, "This is float32. A bfloat16 takes two bytes."),
            NumericSlip(
                "not squared", 1048576.0, "This grows with the length. The table has one row for each query."
            ),
            NumericSlip(
                "causal half", 8590458880.0, "A table of all pairs is stored whole, hidden ones included."
            ),
        ),
        hints=(
            "One number for each query, each key and each head.",
            "All factors are powers of two: 2^5, 2^14 twice, and the bytes.",
            "32 * 16384 * 16384 * 2.",
        ),
    ),
    Choice(
        name="distant_information",
        assignment=STEM,
        claim="C11",
        prompt="Can attention capture distant information?",
        answer="b",
        points=1.0,
        explanations={
            "a": (
                "Nothing fades with the distance in a dot product. It is recurrent networks in which a signal has "
                "to survive every step in between."
            ),
            "b": (
                "Right: dense attention links any two positions in one step, and pays for all pairs. What limits "
                "it in practice is the length that fits, the memory, and what it was trained on. A window gives "
                "up the single step to save the square."
            ),
            "c": (
                "It sounds wise, but a claim and its opposite cannot both be true of the same thing. Of dense "
                "attention the first is; the second is true of a window."
            ),
            "d": (
                "That is a window of fixed size, which is one way to make attention cheaper. Dense attention has no such limit."
            ),
        },
        hints=(
            "Separate dense attention from its cheaper forms.",
            "How many steps lie between two positions in dense attention, and how many pairs are paid for?",
            "One step for any pair, a cost quadratic in the length. Which option says both?",
        ),
    ),
    Choice(
        name="stale_maximum",
        assignment=STEM,
        claim="C04",
        prompt="The maximum of the first block is subtracted from all later scores. What goes wrong?",
        answer="a",
        points=1.0,
        explanations={
            "a": (
                "Right: any number may be subtracted from all scores of a row, so the result is right as long as no "
                "exponential overflows. Tests with small random scores never notice; one later score that is 90 larger does."
            ),
            "b": (
                "Shifting all scores of a row by one and the same number never changes a softmax, whichever number it is."
            ),
            "c": (
                "Rescaling is needed when the number that is subtracted changes on the way. Here it stays the same."
            ),
            "d": "A gradient does not know which constant was subtracted: the softmax is the same function.",
        },
        hints=(
            "What does a softmax do if you add 5 to every score of a row?",
            "Why is a maximum subtracted at all?",
            "exp(88.7) is the end of float32. When is a later score that far above the first maximum?",
        ),
    ),
    Choice(
        name="chunked_flops",
        assignment=STEM,
        claim="C04",
        prompt="What does chunked attention save, compared with dense attention on the same input (not causal)?",
        answer="d",
        points=1.0,
        explanations={
            "a": "Every query still meets every key. Blocks change the order of the work, not its amount.",
            "b": (
                "The output is exact: the same numbers up to rounding. Nothing is left out, nothing approximated."
            ),
            "c": (
                "The keys and values stay as they are; every query needs all of them. What disappears is the "
                "table between them."
            ),
            "d": (
                "Right: the two products cost the same FLOPs, and the exponentials are the same or a few more. Memory "
                "falls from S_q S_k to S_q block_size numbers, and on a GPU those fit next to the arithmetic units."
            ),
        },
        hints=(
            "Count the multiply-adds of one block, then of all blocks.",
            "Look at the two curves that you have just drawn: which of them coincide?",
            "The same operations in another order. What need not be stored any more?",
        ),
    ),
    Number(
        name="causal_tiles",
        assignment=STEM,
        claim="C04",
        prompt="Tiles that causal attention on 1024 positions has to compute with blocks of 64 by 64?",
        answer=136.0,
        points=1.0,
        explanation=(
            "1024 / 64 = 16 blocks each way. Block row i needs the blocks 0..i: 1 + 2 + ... + 16 = 16 * 17 / 2 = 136 of "
            "256. A little more than half, since the tiles on the diagonal are computed whole."
        ),
        slips=(
            NumericSlip("all", 256.0, "These are all tiles. Which lie wholly in the future?"),
            NumericSlip("half", 128.0, "The tiles on the diagonal are needed whole. Count them in."),
            NumericSlip(
                "without diagonal", 120.0, "This leaves out the diagonal, where queries see part of the keys."
            ),
            NumericSlip("pairs", 524800.0, "These are the pairs of positions. The question is about tiles."),
        ),
        hints=(
            "How many blocks of 64 are there along each axis?",
            "The first block of queries needs one tile, the second two.",
            "Block row i needs i tiles: 1 + 2 + ... + 16.",
        ),
    ),
    Number(
        name="window_reach",
        assignment=STEM,
        claim="C11",
        prompt="Positions, itself included, that can influence a position after 8 layers with a causal window of 64?",
        answer=505.0,
        points=1.0,
        explanation=(
            "One layer reaches 63 positions further back, so 8 layers reach 8 * 63 = 504, and the position itself makes "
            "505. Dense attention reaches everything in one layer: that is what the window gives up."
        ),
        slips=(
            NumericSlip(
                "one window", 64.0, "This is one layer. What did those 64 positions see a layer below?"
            ),
            NumericSlip(
                "windows added",
                512.0,
                "Neighbouring windows overlap in one position. How much further does a layer reach?",
            ),
            NumericSlip(
                "without itself", 504.0, "This is how far back it reaches. The position itself counts, too."
            ),
            NumericSlip(
                "multiplied", 281474976710656.0, "Reaches add up from layer to layer; they do not multiply."
            ),
        ),
        hints=(
            "After one layer a position knows of itself and 63 before it.",
            "The farthest of these knew, a layer below, of 63 before itself.",
            "Itself, and 63 more for each layer: 1 + 8 * (64 - 1).",
        ),
    ),
    Choice(
        name="block_sparse_saves",
        assignment=STEM,
        claim="C04",
        prompt="Half of the pairs are masked, each at random. How much does a kernel with blocks of 64 save?",
        answer="c",
        points=1.0,
        explanations={
            "a": "It would if it could skip single pairs. It computes or skips whole blocks of 4096 pairs.",
            "b": (
                "A block is computed whole as soon as one of its pairs is allowed; but a block without any allowed pair "
                "practically never occurs here."
            ),
            "c": (
                "Right: a block can be skipped only if all its 4096 pairs are hidden, which has probability 2^-4096. "
                "What saves work is not how many pairs are hidden but whether they lie together."
            ),
            "d": "The hidden pairs of a computed block are set to -inf: some extra work, but not twice as much.",
        },
        hints=(
            "When can a kernel leave a block out?",
            "How probable is it that all 64 * 64 pairs of a block are masked at once?",
            "Compare a window, whose hidden pairs lie together.",
        ),
    ),
    Choice(
        name="alibi_future",
        assignment=STEM,
        claim="C11",
        prompt="Some code adds slope * j (the key's position alone) to the scores instead of slope * (j - i). What changes?",
        answer="b",
        points=1.0,
        explanations={
            "a": (
                "The bias then differs from row to row by slope * i, but a constant added to all scores of a row "
                "drops out of the softmax."
            ),
            "b": (
                "Right: the two differ by slope * i, the same number for the whole row, and a softmax does not see it. "
                "Press et al. publish it in this form; the bias table itself is another one."
            ),
            "c": "Both forms prefer later keys: slope * j grows with j, too. What lies in the future is the mask's affair.",
            "d": "The slopes are the same in both. What was left out depends on the query, not on the head's slope alone.",
        },
        hints=(
            "Write down the difference of the two biases.",
            "Does that difference depend on the key?",
            "What does a softmax do with a number that is added to a whole row?",
        ),
    ),
)
