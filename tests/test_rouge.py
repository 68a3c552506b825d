"""ROUGE-L is rouge_score's to the last bit, and the nearest texts of a pool are those that all pairs give."""

import random

import numpy as np
import pytest

from lib.text.rouge import Pool, words_of

VOCABULARY = [f"w{n}" for n in range(300)]
WEIGHTS = [1 / (n + 1) for n in range(300)]  # a few words are everywhere, most are rare: as in a language


def texts(seed: int, size: int) -> list[list[str]]:
    """Word lists of 1 to 80 words, about half of them earlier ones with up to four words changed."""
    dice, made = random.Random(seed), []
    for _ in range(size):
        fresh = not made or dice.random() < 0.5
        length = dice.choice((1, 3, 6, 10, 12, 15, 20, 63, 64, 80))
        words = dice.choices(VOCABULARY, WEIGHTS, k=length) if fresh else list(dice.choice(made))
        for _ in range(dice.randint(0, 4)):
            words[dice.randrange(len(words))] = dice.choice(VOCABULARY)
        made.append(words)
    return made


def lcs(a: list[str], b: list[str]) -> int:
    """The textbook's table."""
    row = [0] * (len(b) + 1)
    for word in a:
        before = 0
        for at, other in enumerate(b, 1):
            before, row[at] = row[at], before + 1 if word == other else max(row[at], row[at - 1])
    return row[-1]


def f_of(a: list[str], b: list[str]) -> float:
    common = lcs(a, b)
    precision, recall = common / len(b), common / len(a)
    return 2 * precision * recall / (precision + recall) if common else 0.0


def rouge_l(a: list[str], b: list[str]) -> float:
    return Pool([a]).mean(b)


def test_the_f_measure_of_the_textbook():
    for a, b in zip(texts(1, 60), texts(2, 60), strict=True):
        assert rouge_l(a, b) == f_of(a, b) == rouge_l(b, a)


def test_words_and_f_are_those_of_rouge_score():
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"], use_stemmer=False)
    lines = [
        "Don't stop -- the 2nd time!",
        "don t stop the 2ND",
        "",
        "?!",
        "ÄRGER \u212aelvin naïve_word",
        "the the the",
        "The",
    ]
    lines += [" ".join(words) for words in texts(3, 20)]
    for a in lines:
        for b in lines[::3]:
            assert rouge_l(words_of(a), words_of(b)) == scorer.score(a, b)["rougeL"].fmeasure


def test_the_ten_nearest_are_those_of_all_pairs():
    pool, before = Pool(), []
    for words in texts(4, 130):
        scores = sorted((-f_of(words, other), number) for number, other in enumerate(before))
        assert pool.nearest(words) == [(number, -f) for f, number in scores[:10] if f < 0]
        assert pool.nearest(words, 3, 0.5) == [(number, -f) for f, number in scores[:3] if f <= -0.5]
        assert pool.add(words) == len(before)
        before.append(words)


def test_the_mean_is_that_of_all_pairs():
    before = texts(5, 80)
    pool = Pool(before)
    for words in texts(6, 20):
        assert pool.mean(words) == pytest.approx(np.mean([f_of(words, other) for other in before]), abs=1e-12)
    assert Pool().mean(["a"]) == 0.0


def test_only_few_texts_are_scored(monkeypatch):
    scored = []
    all_of_it = Pool.scores

    def counting(self, words, rows):
        scored.append(len(rows))
        return all_of_it(self, words, rows)

    monkeypatch.setattr(Pool, "scores", counting)
    pool = Pool()
    made = [words for words in texts(7, 900) if len(words) > 5]
    for words in made:
        pool.nearest(words, 1, 0.7)
        pool.add(words)
    assert sum(scored) < 0.03 * len(made) ** 2 / 2


def test_texts_without_words_are_near_nothing():
    pool = Pool([[], ["a"]])
    assert pool.nearest([]) == [] and pool.nearest(["a"]) == [(1, 1.0)] and rouge_l([], []) == 0.0
