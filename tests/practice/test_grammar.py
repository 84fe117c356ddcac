"""The grammar that the lesson on text generation is trained on, and the small models that learn it."""

from __future__ import annotations

import math
import random

import pytest
import torch

from autograder.practice.cache_costs import costs
from autograder.practice.grammar import (
    BOTH,
    CHINESE,
    END,
    ENGLISH,
    PAIRS,
    START,
    Grammar,
    Vocabulary,
    written,
)
from autograder.practice.models import LanguageModel, Translator, continue_text, look
from autograder.practice.solved import solved


@pytest.mark.parametrize("grammar", [ENGLISH, CHINESE, BOTH], ids=["english", "chinese", "both"])
def test_the_probabilities_of_each_choice_sum_to_one(grammar: Grammar) -> None:
    for expansions in grammar.rules.values():
        assert sum(share for share, _ in expansions) == pytest.approx(1.0)


@pytest.mark.parametrize("grammar", [ENGLISH, CHINESE, BOTH], ids=["english", "chinese", "both"])
def test_the_entropy_is_the_mean_surprise_of_sentences(grammar: Grammar) -> None:
    """The exact sum over derivations against 4000 sentences; equal only if no sentence has two derivations."""
    rng = random.Random(1)
    drawn = [grammar.sample(rng) for _ in range(4000)]
    surprises = torch.tensor([-math.log(grammar.probability(one)) for one in drawn])
    error = float(surprises.std()) / 4000**0.5
    assert abs(float(surprises.mean()) - grammar.entropy) < 5 * error
    lengths = torch.tensor([len(one) + 1.0 for one in drawn])
    assert abs(float(lengths.mean()) - grammar.length) < 5 * float(lengths.std()) / 4000**0.5


def valid(text: str) -> bool:
    return BOTH.valid(text.split())


def test_validity_is_decided() -> None:
    assert valid("two dogs that see a bird sleep .")
    assert not valid("two dogs that see a bird sleeps .")  # the head is plural
    assert valid("三 只 看见 一 本 书 的 猫 睡觉 。")
    assert not BOTH.valid(
        ["三", "只", "看见", "一", "本", "书", "的", "女孩", "睡觉", "。"]
    )  # the measure word is that of an animal
    assert not valid("a dog sleeps")
    assert not valid("")


def test_words_and_numbers() -> None:
    vocabulary = Vocabulary(BOTH.words)
    sentence = BOTH.sample(random.Random(3))
    assert vocabulary.decode(vocabulary.encode([START, *sentence, END])) == sentence
    assert written(["a", "dog", "sleeps", "."]) == "a dog sleeps."
    assert written(["猫", "睡觉", "。"]) == "猫睡觉。"


def test_each_english_sentence_has_one_translation() -> None:
    rng = random.Random(4)
    seen: dict[str, str] = {}
    for source, target in (PAIRS.sample(rng) for _ in range(4000)):
        assert seen.setdefault(" ".join(source), " ".join(target)) == " ".join(target)
    assert len(seen) > 1000


def test_the_model_gives_the_same_with_and_without_its_cache() -> None:
    torch.manual_seed(0)
    model = LanguageModel(11, max_length=12).eval()
    tokens = torch.randint(11, (12,))
    with torch.no_grad():
        whole = model(tokens)
        pieces = torch.cat(
            [model(tokens[:5]), model(tokens[5:8], 5), model(tokens[8:9], 8), model(tokens[9:], 9)]
        )
    assert torch.allclose(whole, pieces, atol=1e-5)


def test_the_cache_saves_more_the_longer_the_text() -> None:
    ratios = [costs(n, False)[1] / costs(n, True)[1] for n in (4, 16, 48)]
    assert 1 < ratios[0] < ratios[1] < ratios[2]


def test_the_stand_ins_do_what_the_lesson_asks() -> None:
    from autograder import check

    class Named(Translator):
        pass

    assert check("Seq2SeqGenerator", Named, seed=3).passed
    failing = {v.check for v in check("generate", continue_text, seed=3).verdicts if v.status != "passed"}
    assert failing == {"top_k and top_p"}
    assert look(torch.randn(1, 4), torch.randn(3, 4), torch.randn(3, 4))[1].shape == (1, 3)


def test_solved_takes_the_own_answer_only_if_it_passes(capsys: pytest.CaptureFixture[str]) -> None:
    import solutions.text_generation as solution

    def empty(*given: object) -> None:
        raise NotImplementedError

    assert solved("causal_mask", solution.causal_mask, None) is solution.causal_mask
    assert solved("causal_mask", empty, None) is None
    assert capsys.readouterr().out == (
        "causal_mask: yours\ncausal_mask: a stand-in, until yours passes its checks\n"
    )
