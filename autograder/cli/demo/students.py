"""The made-up class: who hands in what."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Base = Literal["right", "blank"]

PLAIN_ANSWER = (
    "Each query is scored against every key, a softmax over the keys turns the scores into weights that sum "
    "to one, and the output is the weighted average of the values. A translator's decoder reads its source "
    "with it, and in GPT the tokens of one text read each other. Its cost is quadratic in the length."
)
VAGUE_ANSWER = "Attention focuses on what is important, and that makes the model faster."


@dataclass(frozen=True)
class Student:
    """One made-up student.

    base: "right" starts from the reference solutions, "blank" from the notebook as released.
    work: a file in work/ whose definitions replace those of the base; replaced: texts of single solution
    cells; edited: in the text of a solution cell, what stands instead of what;
    deleted: solution cells that are gone; cut: the share of the file that was saved before the disk was full.
    kernels: hands in the assignment on GPU kernels, too, which takes an interpreter its time.
    """

    name: str
    about: str
    base: Base = "right"
    work: str = ""
    replaced: Mapping[str, str] = field(default_factory=dict)
    edited: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    deleted: tuple[str, ...] = ()
    answer: str = PLAIN_ANSWER
    cut: float = 1.0
    kernels: bool = False

    def hands_in(self, stem: str) -> bool:
        """Whether there is a notebook of this assignment."""
        return stem != "gpu_kernels" or self.kernels


CLASS = (
    Student("ada", "right: the reference solutions", kernels=True),
    Student("bruno", "right: einsum", work="bruno"),
    Student("chidi", "right: one query at a time", work="chidi"),
    Student(
        "dana",
        "no division by sqrt(D); a kernel that does not rescale, and one that reads far outside its tensors",
        work="dana",
        edited={
            "softmax_rows": ("x + row * x_row", "x + row * x_row * 1_000_000_000"),
            "flash_forward": ("accumulator * rescale[:, None]", "accumulator"),
        },
        answer=VAGUE_ANSWER,
        kernels=True,
    ),
    Student(
        "emil",
        "softmax over the queries, mask after the softmax, a running output that is not rescaled",
        work="emil",
        edited={"chunked_attention": ("output * shrink", "output")},
    ),
    Student("farah", "True taken for forbidden, softmax that overflows", work="farah"),
    Student("goran", "projections created and not used", work="goran"),
    Student("hana", "the notebook as it was released", base="blank", answer=""),
    Student("ivan", "attention raises", work="ivan", answer=VAGUE_ANSWER),
    Student(
        "jade",
        "a syntax error",
        replaced={
            "attention": "def attention(query, key, value, attn_mask=None, is_causal=False)\n    return value"
        },
    ),
    Student("kofi", "a loop without end", work="kofi"),
    Student("lena", "a deleted cell", deleted=("masked_softmax",)),
    Student("mira", "a file that was cut off while saving", cut=0.7),
)
