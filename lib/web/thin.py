"""Thin: which stories to ask for, so that a question is covered.

In:   what coverage found of a question; the plan that the stories so far were asked with
Out:  the same plan with extras (lib/text/extras.py), one for each thin or absent word of the question
Each asks for its word with as much of the question beside it as an ask has room for: one verb, one noun, one adjective;
the whole question stands in the prompt, too.
"""

import math
from collections.abc import Mapping

from lib.errors import UserError
from lib.text.extras import Extra
from lib.text.prompts import PromptPlan, word_list
from lib.text.words import stem
from lib.web.coverage import COVERED_TOGETHER, Coverage

KINDS = ("verb", "adjective", "noun")
SPARE = 1.25  # a share of what is asked for is held out or dropped
NUM_TOGETHER = 20  # asks where every word is covered, but hardly ever in one story


def with_extras(plan: PromptPlan, found: Coverage, count: int | None = None) -> PromptPlan:
    """`plan` with `count` more asks for each thin word (by default as many as it lacks). UserError if none is thin."""
    short = [word for word in found.words if word.label != "covered"]
    if not short and found.together >= COVERED_TOGETHER:
        raise UserError(f"the stories cover {found.question!r} already: nothing is thin, so nothing was asked for")
    kinds = {word.word: kind_of(word.word, plan) for word in found.words}
    question = words_by_kind(found, kinds)
    wanted: dict[str, tuple[dict[str, str], int]] = {}  # two thin words may share one ask: "cross" and "troll"
    for word in short:
        words = question | dict([kinds[word.word]])
        lacks = math.ceil(SPARE * (found.threshold - word.stories))
        known = wanted.get(str(words), ({}, 0))[1]
        wanted[str(words)] = words, max(known, count or lacks)
    blocks = list(wanted.values()) or [(question, count or NUM_TOGETHER)]
    extras = [Extra(count=number, after=plan.count, about=found.question, **words) for words, number in blocks]
    return PromptPlan.model_validate(plan.model_dump() | {"extra": (*plan.extra, *extras)})


def kind_of(word: str, plan: PromptPlan) -> tuple[str, str]:
    """What the plan's lists have the word as, in their own form ("crossing": verb, cross); else a noun as it stands."""
    for kind in KINDS:
        for listed in word_list(getattr(plan, f"{kind}s")):
            if stem(listed) == stem(word):
                return kind, listed
    return "noun", word


def words_by_kind(found: Coverage, kinds: Mapping[str, tuple[str, str]]) -> dict[str, str]:
    """The question's verb, adjective and noun: of several, the one that the fewest stories hold."""
    rarest = sorted(found.words, key=lambda word: -word.stories)
    return dict(kinds[word.word] for word in rarest)


def told(before: PromptPlan, plan: PromptPlan) -> str:
    """What is asked for beyond `before`, a line each."""
    lines = []
    for extra in plan.extra[len(before.extra) :]:
        words = ", ".join(f"{kind} {word}" for kind in KINDS if (word := getattr(extra, kind)))
        lines.append(f"asking for {extra.count} stories with {words}")
    return "\n".join(lines)


def flags(plan: PromptPlan) -> str:
    """What keeps the plan's extras in a run whose flags are the user's own."""
    given = " ".join(f"--generate.plan.extra '{extra.model_dump_json(exclude_defaults=True)}'" for extra in plan.extra)
    return f"--generate.plan.count {plan.count} {given}"
