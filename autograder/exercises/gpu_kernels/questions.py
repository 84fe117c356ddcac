"""The questions of `gpu_kernels` whose answer is a letter or a number. Their text stands in the lesson."""

from __future__ import annotations

from autograder.exercises.exercise import Choice, Number, NumericSlip

__all__ = ["QUESTIONS"]

STEM = "gpu_kernels"
S, D, SIZE = 4096, 128, 2
"""Length, head width, and bytes of a number, in the questions about memory."""

QUESTIONS: tuple[Choice | Number, ...] = (
    Number(
        name="naive_bytes",
        assignment=STEM,
        claim="C04",
        prompt="Bytes that the three kernels of naive attention move, for one head: S = 4096, D = 128, float16",
        answer=float(SIZE * (4 * S * D + 4 * S * S)),
        points=1.0,
        explanation=(
            "Right. Query, key, value and output are S D numbers each; the S x S table is written as scores, read by "
            "the softmax, written as weights, and read again: 2 (4 S D + 4 S^2) = 138,412,032 bytes, 97 % of them for "
            "a table that nobody asked for."
        ),
        slips=(
            NumericSlip(
                "numbers, not bytes",
                float(4 * S * D + 4 * S * S),
                "A float16 number has two bytes. Are they counted?",
            ),
            NumericSlip(
                "the table moved twice",
                float(SIZE * (4 * S * D + 2 * S * S)),
                "The table of scores is written and read; and so is the table of weights.",
            ),
            NumericSlip(
                "the table moved once", float(SIZE * (4 * S * D + S * S)), "Who reads what has been written?"
            ),
            NumericSlip(
                "only the tables",
                float(SIZE * 4 * S * S),
                "Query, key, value and output have to be moved as well.",
            ),
            NumericSlip(
                "the output left out",
                float(SIZE * (3 * S * D + 4 * S * S)),
                "The output is written to memory, too.",
            ),
        ),
        hints=(
            "Go through the three kernels one by one: what does each read, what does each write?",
            "scores = query key^T; weights = softmax(scores); output = weights value.",
            "First kernel: 2 S D read, S^2 written. Second: S^2 read, S^2 written. Third: S^2 + S D read, S D written.",
        ),
    ),
    Number(
        name="flash_bytes",
        assignment=STEM,
        claim="C04",
        prompt="The least bytes that a fused kernel moves for the same head, its log-sum-exp (float32) included",
        answer=float(SIZE * 4 * S * D + 4 * S),
        points=1.0,
        explanation=(
            "Right: query, key and value once, output once, and four bytes a query for the log-sum-exp: 4,210,688, "
            "33 times less. (Keys and values are read again by every tile of queries, but a head's keys fit into the L2 "
            "cache.)"
        ),
        slips=(
            NumericSlip(
                "without the log-sum-exp",
                float(SIZE * 4 * S * D),
                "One float32 for each query is written, too.",
            ),
            NumericSlip(
                "log-sum-exp in two bytes",
                float(SIZE * 4 * S * D + 2 * S),
                "The log-sum-exp is float32 whatever the inputs are.",
            ),
            NumericSlip("numbers, not bytes", float(4 * S * D + S), "How many bytes has a number?"),
            NumericSlip(
                "the output left out",
                float(SIZE * 3 * S * D + 4 * S),
                "The output is written to memory, too.",
            ),
        ),
        hints=(
            "What has to come in at least once, and what has to go out?",
            "Three tensors of S D numbers in, one out, and a vector.",
            "4 S D numbers of 2 bytes, and S numbers of 4 bytes.",
        ),
    ),
    Choice(
        name="flash_saves",
        assignment=STEM,
        claim="C04",
        prompt="What does flash attention reduce, compared with naive attention?",
        answer="b",
        points=1.0,
        explanations={
            "a": (
                "It does every multiply-add that naive attention does; rescaling and the second computation in backward "
                "even add some. The quadratic cost in the length stays."
            ),
            "b": (
                "Right: traffic and memory. The S x S table never leaves the chip; the multiply-adds are the same, and "
                "quadratic."
            ),
            "c": (
                "It is exact. Online softmax gives the same weights as the softmax over the whole row, up to the order of "
                "rounding."
            ),
            "d": (
                "Parameters are in the projections before and after; the kernel has none, whatever it does."
            ),
        },
        hints=(
            "Count multiply-adds of both on paper, for one tile.",
            "Which tensor does the fused kernel never write?",
            "The number of products does not change; where their results live does.",
        ),
    ),
    Number(
        name="tile_bytes",
        assignment=STEM,
        claim="",
        prompt="Shared memory for 128 queries and two stages of 64 keys and values, D = 128, bfloat16, in bytes",
        answer=float(2 * (128 * 128 + 2 * 2 * 64 * 128)),
        points=1.0,
        explanation=(
            "Right: 32 KiB for the queries, and 2 x 2 x 16 KiB for keys and values in two stages: 98,304 bytes. An H200 "
            "gives a program up to 232,448; two such programs fit on one multiprocessor."
        ),
        slips=(
            NumericSlip(
                "a part left out",
                float(2 * (128 * 128 + 2 * 64 * 128)),
                "The queries stay on the chip, and beside them two tensors, keys and values, in two stages each: one is "
                "computed with while the next is loaded. Are all five tiles counted?",
            ),
            NumericSlip(
                "numbers, not bytes",
                float(128 * 128 + 2 * 2 * 64 * 128),
                "A bfloat16 number has two bytes. Are they counted?",
            ),
            NumericSlip(
                "the queries in two stages, too",
                float(2 * (2 * 128 * 128 + 2 * 2 * 64 * 128)),
                "The tile of queries is loaded once and stays.",
            ),
        ),
        hints=(
            "Three kinds of tiles: queries, keys, values. Which of them change while the loop runs?",
            "A stage is one tile of keys and one of values. There are two stages.",
            "2 bytes x (128 x 128 + 2 stages x 2 tensors x 64 x 128).",
        ),
    ),
    Choice(
        name="masked_tiles",
        assignment=STEM,
        claim="",
        prompt="Causal, 1024 queries and keys, tiles of 64 x 64: which tiles need the mask, and which are not visited?",
        answer="c",
        points=1.0,
        explanations={
            "a": (
                "A tile that lies wholly below the diagonal hides nothing: comparing 4,096 positions there costs time "
                "and changes no number."
            ),
            "b": (
                "Then 120 tiles are loaded, multiplied and thrown away: half of all the work, for weights of exactly zero."
            ),
            "c": (
                "Right: 16 tiles on the diagonal are masked, 120 below it are not, and 120 above it are never visited. "
                "That is where a causal kernel gets its factor of nearly two."
            ),
            "d": ("The diagonal tiles hide something: query 0 of such a tile must not see its keys 1 to 63."),
        },
        hints=(
            "Draw a table of 4 x 4 tiles and the diagonal through it.",
            "Three kinds of tiles: wholly allowed, wholly forbidden, cut by the diagonal.",
            "A mask is needed only where a tile holds both allowed and forbidden pairs.",
        ),
    ),
    Choice(
        name="kept_log_sum_exp",
        assignment=STEM,
        claim="",
        prompt="Why does forward keep the log-sum-exp of each query?",
        answer="d",
        points=1.0,
        explanations={
            "a": (
                "The output needs the maximum and the sum while the kernel runs; when the output is stored, it needs "
                "nothing more."
            ),
            "b": (
                "Forward's result is the same with or without it. What it saves is work and memory later, not rounding."
            ),
            "c": (
                "Keys and values do not come back from it: it is one number for each query. They are kept as they are."
            ),
            "d": (
                "Right: P = exp(score - log_sum_exp) gives every weight of any tile at once, without a first pass for "
                "maximum and sum; S numbers are kept instead of S x S. And parts of a sequence are put together by it."
            ),
        },
        hints=(
            "What would backward have to do if only the output were kept?",
            "Which two numbers of a row turn a score into a weight? One number can do the work of both.",
            "exp(s - m) / l = exp(s - (m + ln l)).",
        ),
    ),
    Choice(
        name="decode_bound",
        assignment=STEM,
        claim="",
        prompt="Why is decoding one token bound by memory bandwidth, whatever the kernel does?",
        answer="a",
        points=1.0,
        explanations={
            "a": (
                "Right: every key and value that is read serves one query (or the few of a group): about one to eight "
                "operations a byte, where an H200 could do about 200 in the time of that read."
            ),
            "b": (
                "A softmax over thousands of numbers takes microseconds. The cache takes longer to read than all "
                "arithmetic together, exponentials included."
            ),
            "c": (
                "Launching takes a few microseconds once; reading the cache of a long sequence takes longer, and grows "
                "with its length."
            ),
            "d": (
                "A table of pages costs one integer for every 16 keys or so. Without pages the bound is the same."
            ),
        },
        hints=(
            "How often is a number of the cache used after it has been read?",
            "Compute multiply-adds per byte: for a prompt of S tokens, and for one token.",
            "Compare that with the machine's FLOP/s divided by its bytes/s.",
        ),
    ),
    Number(
        name="decode_intensity",
        assignment=STEM,
        claim="",
        prompt="FLOPs per byte of decoding with groups of 8 query heads, bfloat16 cache, long sequence",
        answer=8.0,
        points=1.0,
        explanation=(
            "Right: for each key and value (4 D bytes) each of 8 query heads does 4 D operations: 32 D / 4 D = 8. One "
            "query head for each key head has 1. An H200 needs about 200 to be busy with arithmetic."
        ),
        slips=(
            NumericSlip(
                "half the operations",
                4.0,
                "A multiply-add is two operations, and there are two products: scores and output.",
            ),
            NumericSlip(
                "one query head", 1.0, "The eight query heads of a group use the same keys. Are all counted?"
            ),
            NumericSlip(
                "half the bytes",
                16.0,
                "A number has two bytes, and keys and values are both read.",
            ),
        ),
        hints=(
            "Take one position of the cache: how many bytes are read, how many operations done with them?",
            "Bytes: a key and a value of D numbers, two bytes each. Operations: two products of 2 D each, for each query head.",
            "8 x 4 D operations over 4 D bytes.",
        ),
    ),
    Choice(
        name="interpreter_blind",
        assignment=STEM,
        claim="",
        prompt="A kernel gives the right numbers in the interpreter. Which mistake can still be in it?",
        answer="b",
        points=1.0,
        explanations={
            "a": (
                "The interpreter computes what the mask says: a tail that takes part changes the numbers there, too, and "
                "the check sees it."
            ),
            "b": (
                "Right: programs run one after the other there, so an addition that two programs make to one address "
                "without atomics always comes out. On a GPU one of the two is lost now and then. The numbers do not show "
                "it here, only a record of which program touches what."
            ),
            "c": ("A wrong stride reads other numbers in the interpreter as well: the layout check sees it."),
            "d": (
                "The running maximum is ordinary arithmetic: without its rescale the interpreter's result is wrong, too."
            ),
        },
        hints=(
            "What does the interpreter do in another way than the hardware?",
            "It runs one program after the other, in Python, with numpy.",
            "Think of what can only happen when two programs run at once.",
        ),
    ),
)
