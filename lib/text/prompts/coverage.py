"""How evenly a plan uses its words: every entry of every list against its share.

In:   a plan; `uses` of its asks, which add up, so that nobody has to hold the asks
Out:  one Cover per axis and entry, unused ones included; `summed_up`, per axis the share that is fair and the worst

A word is used fairly where its uses are within 20 % of what an even hand would give it. Dealing makes that certain once
each entry has come up five times: `certain_from` asks.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lib.text.prompts.plan import DESIGNS, FEATURES, FIELDS, SIMPLE, TINY, Ask, PromptPlan

AXES = (*FIELDS["combined"], "paragraphs", "feature")
Uses = Counter[tuple[str, str]]  # axis and word
FAIR = 0.2
ROUNDS = 5  # after n rounds an entry has n or n + 1 uses: at most one n-th away from its share


@dataclass(frozen=True)
class Cover:
    """What became of one entry."""

    axis: str
    word: str
    uses: int
    share: float  # of the axis' uses
    expected_share: float  # were every entry of the axis used alike

    @property
    def ratio(self) -> float:
        return self.share / self.expected_share

    @property
    def fair(self) -> bool:
        return abs(self.ratio - 1) <= FAIR + 1e-9


def axes_of(plan: PromptPlan) -> dict[str, tuple[str, ...]]:
    """Every axis of this plan, with everything that may come up on it."""
    designs = DESIGNS[plan.design]
    axes = {field: plan.entries(kind) for design in designs for field, kind in FIELDS[design].items()}
    if designs != (TINY,):
        axes["paragraphs"] = plan.paragraphs
    if designs != (SIMPLE,) and plan.features:
        axes["feature"] = FEATURES
    return axes


def uses(asks: Iterable[Ask]) -> Uses:
    """How often each word of each axis comes up in these."""
    found: Uses = Counter()
    for ask in asks:
        found.update((axis, str(value)) for axis in AXES[:-1] if (value := getattr(ask, axis)) is not None)
        found.update(("feature", feature) for feature in ask.features)
    return found


def coverage(plan: PromptPlan, found: Uses) -> list[Cover]:
    """The uses of every entry, axis by axis."""
    covers = []
    for axis, entries in axes_of(plan).items():
        if total := sum(found[axis, word] for word in entries):
            counts = ((word, found[axis, word]) for word in entries)
            covers += [Cover(axis, word, count, count / total, 1 / len(entries)) for word, count in counts]
    return covers


def summed_up(plan: PromptPlan, covers: Sequence[Cover]) -> dict[str, dict[str, Any]]:
    """Per axis: how many entries, the share of them used fairly, the one farthest from its share."""
    told = {}
    for axis in dict.fromkeys(cover.axis for cover in covers):
        of_axis = [cover for cover in covers if cover.axis == axis]
        worst = max(of_axis, key=lambda cover: abs(cover.ratio - 1))
        told[axis] = {
            "words": len(of_axis),
            "within_20_percent": round(sum(cover.fair for cover in of_axis) / len(of_axis), 4),
            "worst": worst.word,
            "worst_ratio": round(worst.ratio, 3),
        }
        if axis != "feature":  # drawn, not dealt
            told[axis]["certain_from"] = ROUNDS * len(of_axis) * len(DESIGNS[plan.design])
    return told
