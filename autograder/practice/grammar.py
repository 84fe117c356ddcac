"""A grammar of small English and Chinese sentences: seeded, exactly decidable, and of exactly known entropy.

Every sentence has one derivation only, so its probability is that of the derivation, and the entropy of sentences is
that of derivations. `PAIRS` is a second grammar, of sentences in both languages at once: a toy translation task.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

__all__ = ["BOTH", "CHINESE", "END", "ENGLISH", "PAIRS", "START", "Grammar", "Pairs", "Vocabulary", "written"]

START, END = "<s>", "</s>"

Rules = Mapping[str, Sequence[tuple[float, str]]]
"""For each symbol its expansions: a probability, and symbols and words separated by spaces ("" for nothing)."""


@dataclass(frozen=True)
class Grammar:
    """A probabilistic context-free grammar without recursion. What is no symbol in `rules` is a word."""

    start: str
    rules: Rules

    def sample(self, rng: random.Random) -> list[str]:
        """One sentence, word by word."""
        return self._expand(self.start, rng)

    def _expand(self, symbol: str, rng: random.Random) -> list[str]:
        if symbol not in self.rules:
            return [symbol]
        expansions = self.rules[symbol]
        chosen = rng.choices([text for _, text in expansions], [share for share, _ in expansions])[0]
        return [word for part in chosen.split() for word in self._expand(part, rng)]

    def probability(self, words: Sequence[str]) -> float:
        """The probability of a sentence: 0 if it is not one."""
        return self._ends(self.start, tuple(words), 0, {}).get(len(words), 0.0)

    def valid(self, words: Sequence[str]) -> bool:
        """Whether the grammar makes this sentence."""
        return self.probability(words) > 0

    def _ends(
        self, symbol: str, words: tuple[str, ...], start: int, known: dict[tuple[str, int], dict[int, float]]
    ) -> dict[int, float]:
        """Where a stretch of words that `symbol` can make may end, with its probability."""
        if symbol not in self.rules:
            return {start + 1: 1.0} if start < len(words) and words[start] == symbol else {}
        if (symbol, start) not in known:
            found: dict[int, float] = {}
            for share, text in self.rules[symbol]:
                ends = {start: share}
                for part in text.split():
                    longer: dict[int, float] = {}
                    for end, so_far in ends.items():
                        for later, more in self._ends(part, words, end, known).items():
                            longer[later] = longer.get(later, 0.0) + so_far * more
                    ends = longer
                for end, total in ends.items():
                    found[end] = found.get(end, 0.0) + total
            known[symbol, start] = found
        return known[symbol, start]

    @cached_property
    def entropy(self) -> float:
        """Nats a sentence: the entropy of each choice, weighted by how often it is made."""
        return self._expected(
            lambda expansions: -sum(share * math.log(share) for share, _ in expansions), 0.0
        )

    @cached_property
    def length(self) -> float:
        """Expected number of words, with the END that follows the last."""
        return 1.0 + self._expected(lambda expansions: 0.0, 1.0)

    @property
    def entropy_per_token(self) -> float:
        """Nats a token, END included: no model's mean loss over many sentences can stay below it."""
        return self.entropy / self.length

    def _expected(self, choice: object, word: float, symbol: str | None = None) -> float:
        """The expected sum, over a derivation, of `choice(expansions)` for each symbol and of `word` for each word."""
        symbol = self.start if symbol is None else symbol
        if symbol not in self.rules:
            return word
        expansions = self.rules[symbol]
        here: float = choice(expansions)  # type: ignore[operator]
        return here + sum(
            share * sum(self._expected(choice, word, part) for part in text.split())
            for share, text in expansions
        )

    @cached_property
    def words(self) -> tuple[str, ...]:
        """All words, in alphabetical order."""
        parts = {
            part for expansions in self.rules.values() for _, text in expansions for part in text.split()
        }
        return tuple(sorted(parts - set(self.rules)))


def _evenly(text: str) -> tuple[tuple[float, str], ...]:
    """Equally likely expansions, separated by bars."""
    options = [option.strip() for option in text.split("|")]
    return tuple((1 / len(options), option) for option in options)


# The verb agrees with the head of its subject, also across a relative clause: the last noun need not be the head.
_ENGLISH: Rules = {
    "S": ((0.6, "ONE VERB1 ."), (0.4, "MANY VERB2 .")),
    "ONE": ((0.7, "a ADJ NOUN1"), (0.3, "a ADJ NOUN1 that VERB1_")),
    "MANY": ((0.7, "NUMBER ADJ NOUN2"), (0.3, "NUMBER ADJ NOUN2 that VERB2_")),
    "VERB1": ((0.35, "REST1"), (0.65, "ACT1 OBJECT")),
    "VERB2": ((0.35, "REST2"), (0.65, "ACT2 OBJECT")),
    "VERB1_": ((0.2, "REST1"), (0.8, "ACT1 OBJECT")),
    "VERB2_": ((0.2, "REST2"), (0.8, "ACT2 OBJECT")),
    "OBJECT": ((0.5, "a ADJ NOUN1"), (0.5, "NUMBER ADJ NOUN2")),
    "ADJ": ((0.6, ""), (0.1, "red"), (0.1, "big"), (0.1, "small"), (0.1, "old")),
    "NUMBER": _evenly("two | three | many"),
    "NOUN1": _evenly("cat | dog | bird | girl | boy | book"),
    "NOUN2": _evenly("cats | dogs | birds | girls | boys | books"),
    "REST1": _evenly("sleeps | runs | sings"),
    "REST2": _evenly("sleep | run | sing"),
    "ACT1": _evenly("sees | likes | finds"),
    "ACT2": _evenly("see | like | find"),
}

# A number needs the measure word of its noun, which may stand behind an adjective or a whole clause.
_CHINESE: Rules = {
    "句": ((1.0, "名 动 。"),),
    "名": ((0.7, "短"), (0.3, "长")),
    "短": ((0.5, "数 只 形 兽"), (0.3, "数 个 形 人"), (0.2, "数 本 形 书")),
    "长": ((0.6, "数 只 从 兽"), (0.4, "数 个 从 人")),
    "从": ((0.2, "静 的"), (0.8, "及 短 的")),
    "动": ((0.35, "静"), (0.65, "及 短")),
    "形": ((0.6, ""), (0.1, "红色 的"), (0.1, "大 的"), (0.1, "小 的"), (0.1, "老 的")),
    "数": _evenly("一 | 两 | 三"),
    "兽": _evenly("猫 | 狗 | 鸟"),
    "人": _evenly("女孩 | 男孩"),
    "静": _evenly("睡觉 | 跑步 | 唱歌"),
    "及": _evenly("看见 | 喜欢 | 找到"),
}

ENGLISH, CHINESE = Grammar("S", _ENGLISH), Grammar("句", _CHINESE)
BOTH = Grammar("TEXT", {"TEXT": ((0.5, "S"), (0.5, "句")), **_ENGLISH, **_CHINESE})


class Vocabulary:
    """Words and their numbers; START is 0, END is 1."""

    def __init__(self, words: Sequence[str]):
        self.words = (START, END, *words)
        self.numbers = {word: number for number, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, words: Sequence[str]) -> list[int]:
        """The numbers of words."""
        return [self.numbers[word] for word in words]

    def decode(self, tokens: Sequence[int]) -> list[str]:
        """The words of numbers, without START and up to the first END."""
        words = [self.words[int(token)] for token in tokens]
        words = words[: words.index(END)] if END in words else words
        return [word for word in words if word != START]


def written(words: Sequence[str]) -> str:
    """A sentence as one writes it: English with spaces, Chinese without."""
    chinese = any("一" <= letter <= "鿿" for word in words for letter in word)
    return ("" if chinese else " ").join(words).replace(" .", ".")


_SYNCHRONOUS: Mapping[str, Sequence[tuple[str, str]]] = {
    "S": (("WHO ACT THING PLACE .", "WHO PLACE ACT THING 。"), ("WHO ACT THING .", "WHO ACT THING 。")),
    "WHO": (
        ("the girl", "女孩"),
        ("the boy", "男孩"),
        ("the cat", "猫"),
        ("the dog", "狗"),
        ("the old man", "老人"),
    ),
    "ACT": (("sees", "看见"), ("likes", "喜欢"), ("finds", "找到"), ("buys", "买")),
    "THING": (
        ("one book", "一 本 书"),
        ("NUMBER books", "NUMBER 本 书"),
        ("one red book", "一 本 红色 的 书"),
        ("NUMBER red books", "NUMBER 本 红色 的 书"),
        ("one small bird", "一 只 小 的 鸟"),
        ("NUMBER small birds", "NUMBER 只 小 的 鸟"),
        ("NUMBER friends of WHO", "WHO 的 NUMBER 个 朋友"),
    ),
    "NUMBER": (("two", "两"), ("three", "三"), ("four", "四")),
    "PLACE": (("in the garden", "在 花园 里"), ("at home", "在 家"), ("in the city", "在 城市 里")),
}


@dataclass(frozen=True)
class Pairs:
    """A grammar of pairs: each expansion has two sides that hold the same symbols, in orders of their own."""

    start: str
    rules: Mapping[str, Sequence[tuple[str, str]]]

    def sample(self, rng: random.Random) -> tuple[list[str], list[str]]:
        """A sentence and its one right translation."""
        return self._expand(self.start, rng)

    def _expand(self, symbol: str, rng: random.Random) -> tuple[list[str], list[str]]:
        left, right = rng.choice(self.rules[symbol])
        made = {part: self._expand(part, rng) for part in left.split() if part in self.rules}
        return (
            [word for part in left.split() for word in (made[part][0] if part in made else [part])],
            [word for part in right.split() for word in (made[part][1] if part in made else [part])],
        )

    def words(self, side: int) -> tuple[str, ...]:
        """All words of a side, in alphabetical order."""
        parts = {
            part for options in self.rules.values() for option in options for part in option[side].split()
        }
        return tuple(sorted(parts - set(self.rules)))


PAIRS = Pairs("S", _SYNCHRONOUS)
