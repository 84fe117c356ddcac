"""Labels: every Chinese word can be shown on a machine that has no Chinese letters."""

from __future__ import annotations

import pytest

from autograder.practice import labels
from autograder.practice.grammar import CHINESE, PAIRS, written


def test_every_chinese_word_has_its_sound_in_letters_that_every_machine_has() -> None:
    words = {*CHINESE.words, *PAIRS.words(1)}
    assert words == set(labels.PINYIN)
    assert all(ord(letter) < 0x250 for sound in labels.PINYIN.values() for letter in sound)


@pytest.mark.parametrize(
    ("families", "shown"),
    [(("Noto Sans CJK SC", "DejaVu Sans"), "三只鸟"), (("DejaVu Sans",), "sān zhī niǎo")],
)
def test_a_word_is_shown_as_the_machine_can(
    monkeypatch: pytest.MonkeyPatch, families: tuple[str, ...], shown: str
) -> None:
    monkeypatch.setattr(labels, "fonts", lambda: families)
    assert written([labels.label(word) for word in ("三", "只", "鸟")]) == shown
    assert labels.label("cat") == "cat"


def test_the_families_are_fonts_that_are_there() -> None:
    from matplotlib.font_manager import findfont

    labels.fonts.cache_clear()
    for family in labels.fonts():
        assert findfont(family, fallback_to_default=False)
