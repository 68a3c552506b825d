"""Novelty: which of 52,000 instructions are too like an earlier one, beside all pairs through rouge_score.

In:   instructions put together from templates and word lists, some of them earlier ones with a word or two exchanged;
      summaries of the built-in storyteller
Out:  CPU seconds of the filter with and without the ten nearest neighbours, and whether all pairs give other verdicts

The peer's way is Alpaca's: a new text is scored against every one before it. 52,000 of them are 1.35 thousand million
pairs, which nobody waits for here: its pairs per second are measured on a sample and multiplied, and the table says so.
"""
# ruff: noqa: E501 - tables

import random
from collections.abc import Callable
from typing import Any

from bench.beside import Case, Row, alone, beside
from lib.text.rouge import Pool, words_of
from lib.text.storyteller import words as lists

ALPACA = 52_000  # instructions in alpaca_data.json
BAR_MINUTES = 10.0
SAMPLE_PAIRS = 60_000
ASKS = (
    "Write {form} about {thing}", "Explain {topic} to {who}", "Give {number} reasons why {clause}", "Describe how to {act}",
    "Summarize the main ideas of {topic} in {number} sentences", "What is the difference between {thing} and {thing2}?",
    "Suggest {number} ways to {act} without {thing}", "Compare {topic} with {topic2}", "Rewrite the sentence so that {clause}",
    "Create {form} in which {clause}", "List {number} facts about {topic}", "How would you {act} if {clause}?",
    "Classify {thing} as useful, harmless or dangerous", "Translate the following text about {thing} into plain English",
    "Generate a title for {form} about {topic}", "Edit this paragraph on {topic} and remove every {noun}",
    "Is it true that {clause}? Explain your answer", "Plan {form} for {who} who wants to {act}", "Name {number} kinds of {noun}",
    "Tell {who} why {clause}", "Design {form} that helps {who} {act}", "Find a synonym for the word {adj} and use it in {form}",
    "Predict what happens when {clause}", "Given a list of {noun}s, sort them by how {adj} they are", "Do you think {clause}?",
    "Identify the odd one out: {noun}, {noun2}, {noun3}", "Calculate how many {noun}s {who} needs to {act}",
    "Compose {form} that ends with the word {noun}", "Imagine that {clause}. What would {who} say?", "Outline {topic}",
    "Convert {number} {noun}s into {noun2}s", "Which is more {adj}, {thing} or {thing2}?", "Come up with {form} for {thing}",
)  # fmt: skip
FORMS = (
    "a poem", "a short story", "an email", "a letter", "a speech", "a haiku", "a recipe", "a riddle", "a joke", "a slogan",
    "a news report", "a dialogue", "a lesson plan", "a checklist", "a product review", "a song", "a diary entry", "a tweet",
)  # fmt: skip
WHO = (
    "a child",
    "a teacher",
    "my grandmother",
    "a new student",
    "an engineer",
    "a farmer",
    "a busy parent",
    "a tourist",
)
LEADS = (
    "",
    "",
    "",
    "",
    "Please {low}",
    "In your own words, {low}",
    "For {who}: {low}",
    "{low} Then {low2}",
    "First {low}, then {low2}",
)
TAILS = (
    "", "", "", ".", " for {who}.", " in {adj} words.", " using the word {noun}.", ", and mention {thing}.", " while you {act}.",
    ", but do not speak of {topic}.", ". Keep it {adj} and {adj2}.", " based on {topic}.", " as if {clause}.",
)  # fmt: skip
FIELDS = (
    "climate change", "machine learning", "photosynthesis", "the water cycle", "inflation", "world history", "nutrition",
    "quantum physics", "public transport", "grammar", "the solar system", "human rights", "sleep", "gardening", "chess",
    "renewable energy", "the stock market", "first aid", "ancient Rome", "volcanoes", "vaccines", "music theory",
)  # fmt: skip


def instructions(count: int, seed: int = 0, copies: float = 0.15) -> list[str]:
    """`count` instructions; of ten, one or two are earlier ones with a word or two exchanged."""
    dice, made = random.Random(seed), []
    for _ in range(count):
        if made and dice.random() < copies:
            told = dice.choice(made).split()
            for _ in range(dice.randint(1, 3)):
                told[dice.randrange(len(told))] = dice.choice(lists.listed("nouns"))
            made.append(" ".join(told))
        else:
            made.append(_instruction(dice))
    return made


def _instruction(dice: random.Random) -> str:
    first, second = (_ask(dice) for _ in range(2))
    lead = dice.choice(LEADS) or "{ask}"
    low, low2 = (ask[0].lower() + ask[1:] for ask in (first, second))
    return lead.format(ask=first, low=low, low2=low2, who=dice.choice(WHO))


def _ask(dice: random.Random) -> str:
    verb, noun, adj = (lambda name=name: dice.choice(lists.listed(name)) for name in ("verbs", "nouns", "adjectives"))

    def act() -> str:
        phrase = lists.verb(verb())
        return f"{phrase.base} {phrase.rest} {dice.choice(('', '', 'with ' + lists.with_article(noun())))}".strip()

    def thing() -> str:
        return lists.with_article(f"{dice.choice(('', adj()))} {noun()}".strip())

    def topic() -> str:
        return dice.choice((*FIELDS, f"the history of the {noun()}", f"the life of {thing()}", f"the {adj()} {noun()}"))

    def clause() -> str:
        return dice.choice((f"the {noun()} is too {adj()}", f"{thing()} can {act()}", f"people {act()} near {thing()}"))

    keys = {"form": dice.choice(FORMS), "who": dice.choice(WHO), "number": dice.choice(("two", "three", "five", "ten"))}
    keys |= {"thing": thing(), "thing2": thing(), "topic": topic(), "topic2": topic(), "clause": clause(), "act": act()}
    keys |= {"noun": noun(), "noun2": noun(), "noun3": noun(), "adj": adj(), "adj2": adj()}
    return (dice.choice(ASKS) + dice.choice(TAILS)).format(**keys)


def summaries(count: int) -> list[str]:
    """Summaries as the built-in storyteller writes them."""
    from lib.text.storyteller.story import tell
    from lib.text.storyteller.wish import wish_of

    return [tell(wish_of([], n), n).summary for n in range(count)]


TEXTS = {"instructions": instructions, "summaries": summaries}


def ours(kind: str, count: int, neighbours: int) -> Callable[[], dict[str, Any]]:
    """The filter as the stage runs it: each text against those kept before it."""
    texts = TEXTS[kind](count)

    def work() -> dict[str, Any]:
        return {"kept": sum(kept_one_by_one(texts, neighbours)), "rows": count}

    return work


def kept_one_by_one(texts: list[str], neighbours: int = 10) -> list[bool]:
    """Which texts stay."""
    pool, kept = Pool(), []
    for text in texts:
        words = words_of(text)
        near = pool.nearest(words, neighbours) if neighbours else pool.nearest(words, 1, 0.7)
        kept.append(not near or near[0][1] <= 0.7)
        if kept[-1]:
            pool.add(words)
    return kept


def kept_by_all_pairs(texts: list[str]) -> list[bool]:
    """The same through rouge_score, a text against every kept one."""
    from rouge_score.rouge_scorer import _score_lcs

    pool, kept = [], []
    for text in texts:
        words = words_of(text)
        kept.append(not any(_score_lcs(words, other).fmeasure > 0.7 for other in pool))
        if kept[-1]:
            pool.append(words)
    return kept


def all_pairs(kind: str, pairs: int) -> Callable[[], dict[str, Any]]:
    """The peer: rouge_score's score of so many pairs, split into words beforehand, as Alpaca does."""
    from rouge_score.rouge_scorer import _score_lcs

    texts = [words_of(text) for text in TEXTS[kind](2000)]
    dice = random.Random(3)
    chosen = [(dice.choice(texts), dice.choice(texts)) for _ in range(pairs)]

    def work() -> dict[str, Any]:
        for target, prediction in chosen:
            _score_lcs(target, prediction)
        return {"pairs": pairs}

    return work


def same_verdicts(count: int) -> Callable[[], dict[str, Any]]:
    """How many of so many instructions both filters judge alike."""
    texts = instructions(count)

    def work() -> dict[str, Any]:
        both = zip(kept_one_by_one(texts), kept_by_all_pairs(texts), strict=True)
        return {"same": sum(ours == theirs for ours, theirs in both), "rows": count}

    return work


def table(*, rounds: int, stories: str | None, llama2c: str | None) -> list[Row]:
    """Our lines of the table; the peer's hours are its pairs per second times all pairs."""
    lines = []
    for kind, count in (("instructions", ALPACA), ("summaries", 10_000)):
        cases = [
            Case("ours", "bench.novelty", "ours", {"kind": kind, "count": count, "neighbours": 10}),
            Case("verdicts only", "bench.novelty", "ours", {"kind": kind, "count": count, "neighbours": 0}),
            Case("peer", "bench.novelty", "all_pairs", {"kind": kind, "pairs": SAMPLE_PAIRS}),
        ]
        found = beside(cases, rounds)
        hours = found["peer"].cpu_s / SAMPLE_PAIRS * count * (count - 1) / 2 / 3600
        ours_s = found["ours"].cpu_s
        bar = hours * 60 / BAR_MINUTES if kind == "instructions" else None
        without = f"{found['verdicts only'].cpu_s:.0f} s without neighbours"
        kept = f"{found['ours'].figures['kept']:,} stay"
        note = f"{count:,} {kind}; {kept}; {without}; the peer's hours: {SAMPLE_PAIRS:,} pairs, multiplied"
        lines.append(Row("novelty", f"{ours_s:.0f} core-s", f"{hours:.1f} core-h", hours * 3600 / ours_s, bar, note))
    check = alone(Case("same", "bench.novelty", "same_verdicts", {"count": 2000})).figures
    told = f"{check['same']:,} of {check['rows']:,} verdicts the same"
    lines.append(Row("novelty, verdicts", told, "all pairs", check["same"] / check["rows"], 1.0, "instructions"))
    return lines


if __name__ == "__main__":
    for line in table(rounds=1, stories=None, llama2c=None):
        print(line)
