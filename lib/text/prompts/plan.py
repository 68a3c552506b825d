"""A plan: so many stories, each with its own ask.

In:   PromptPlan: count, seed, design, lists, how many stories a request
Out:  `asks(plan, start, stop)`: ask i is the same whatever the count; `groups`, the asks that share a request

Two designs. TinyStories (arXiv 2305.07759 section 2): a random verb, noun and adjective and a random subset of six
features. SimpleStories (arXiv 2504.09184): theme, topic, style, persona, first word and number of paragraphs, against
the sameness that three random words leave (it counts "once upon a time" in 59 % of TinyStories). `mixed` takes them in
turns, `combined` asks for both at once. A plan asks whole requests: its counts are rounded up to them, so one that
grows keeps every request that it has made. Every list is dealt like cards, so an entry's uses stay within one of any
other's, and from 5 uses of each on within 20 % of its share. Features alone are drawn: a subset is left to chance.
"""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import Field, model_validator

from lib.store import Config, digest
from lib.text.extras import Extra, place, whole
from lib.text.prompts.lists import PHRASES, dealt, word_list

FEATURES = ("dialogue", "plot twist", "bad ending", "moral value", "foreshadowing", "conflict")
TINY, SIMPLE = "tinystories", "simplestories"
DESIGNS = {TINY: (TINY,), SIMPLE: (SIMPLE,), "mixed": (TINY, SIMPLE), "combined": ("combined",)}  # taken in turns
FIELDS = {  # the field of an ask -> the field of the plan that names its list
    TINY: {"verb": "verbs", "noun": "nouns", "adjective": "adjectives"},
    SIMPLE: {
        "theme": "themes",
        "topic": "topics",
        "style": "styles",
        "persona": "personas",
        "first_word": "first_words",
    },
}
FIELDS["combined"] = FIELDS[TINY] | FIELDS[SIMPLE]
AT_A_TIME = 256  # requests whose asks are made at once
Lists = dict[str, dict[str, tuple[str, ...]]]  # by design and field of an ask


class PromptPlan(Config):
    """What to ask for. Two plans that differ only in `count` ask the same first stories, in the same requests."""

    count: int = Field(
        3000, ge=1, description="how many stories to ask for; rounded up to a multiple of stories_per_request"
    )
    seed: int = Field(0, ge=0, description="another seed asks for other combinations")
    design: Literal["tinystories", "simplestories", "mixed", "combined"] = Field(
        "tinystories",
        description="verb, noun, adjective and features; or theme, topic, style, persona, first word and paragraphs; "
        "or the two in turns; or both in every story",
    )
    stories_per_request: int = Field(
        1, ge=1, le=50, description="stories that one request asks for; fewer prompt tokens a story, longer replies"
    )
    verbs: str = Field("verbs", description="word list: a name in data/words, or the path of a .txt file")
    nouns: str = Field("nouns", description="word list, as for verbs")
    adjectives: str = Field("adjectives", description="word list, as for verbs")
    features: float = Field(0.3, ge=0.0, le=1.0, description="how likely each of the six features is")
    themes: str = Field("themes", description="list of phrases, one a line: a name in data/words, or a .txt file")
    topics: str = Field("topics", description="list of phrases, as for themes")
    styles: str = Field("styles", description="list of phrases, as for themes")
    personas: str = Field("personas", description="list of phrases, as for themes: who tells the story")
    first_words: str = Field("first_words", description="word list, as for verbs: how stories begin")
    least_paragraphs: int = Field(1, ge=1, le=9, description="paragraphs of the shortest story, in simplestories")
    most_paragraphs: int = Field(5, ge=1, le=9, description="paragraphs of the longest story, in simplestories")
    extra: tuple[Extra, ...] = Field((), description="further asks, about what the stories hold too little of")
    words_digest: str = Field(
        "", description="the lists and their digest; filled in: other words in them are another plan"
    )

    @model_validator(mode="after")
    def _ask_whole_requests(self) -> "PromptPlan":
        """A last request for fewer would be another one as soon as the plan grows: its stories bought again."""
        size = self.stories_per_request
        extras = (
            each.model_copy(update={"count": whole(each.count, size), "after": whole(each.after, size)})
            for each in self.extra
        )
        object.__setattr__(self, "count", whole(self.count, size))  # frozen for everybody else
        object.__setattr__(self, "extra", tuple(extras))
        return self

    @model_validator(mode="after")
    def _digest_words(self) -> "PromptPlan":
        if self.least_paragraphs > self.most_paragraphs:
            raise ValueError(f"least_paragraphs {self.least_paragraphs} is more than most_paragraphs")
        kinds = [kind for design in DESIGNS[self.design] for kind in FIELDS[design].values()]
        names = " ".join(getattr(self, kind) for kind in kinds)
        found = hashlib.sha256(repr([self.entries(kind) for kind in kinds]).encode()).hexdigest()[:16]
        made_with, _, before = self.words_digest.rpartition(" ")
        if made_with == names and before != found:
            raise ValueError(
                f"found word lists {names} with digest {found}, expected {before}, with which this plan was made; "
                "restore the lists, or leave words_digest out to make another plan"
            )
        object.__setattr__(self, "words_digest", f"{names} {found}")  # frozen for everybody else
        return self

    def entries(self, kind: str) -> tuple[str, ...]:
        """The words or phrases of one of this plan's lists."""
        return word_list(getattr(self, kind), phrases=kind in PHRASES)

    @property
    def total(self) -> int:
        """All asks: the plan's own and the extra ones."""
        return self.count + sum(each.count for each in self.extra)

    @property
    def paragraphs(self) -> tuple[str, ...]:
        """The numbers of paragraphs to ask for, dealt as a list is."""
        return tuple(map(str, range(self.least_paragraphs, self.most_paragraphs + 1)))


@dataclass(frozen=True)
class Ask:
    """One story to ask for. What its design leaves open is None."""

    index: int
    verb: str | None = None
    noun: str | None = None
    adjective: str | None = None
    features: tuple[str, ...] = ()
    design: str = TINY
    theme: str | None = None
    topic: str | None = None
    style: str | None = None
    persona: str | None = None
    first_word: str | None = None
    paragraphs: int | None = None
    extra: bool = False  # asked for beyond the plan's own, to make up for what the stories lack
    about: str = ""  # of an extra: what the story shall be about


def asks(plan: PromptPlan, start: int = 0, stop: int | None = None) -> list[Ask]:
    """Asks number `start` to `stop` (default: all of them), the last one not included."""
    designs = {*DESIGNS[plan.design], *([TINY] if plan.extra else [])}  # an extra fixes words of that design
    lists = {design: {field: plan.entries(kind) for field, kind in FIELDS[design].items()} for design in designs}
    return [_placed(plan, index, lists) for index in range(start, plan.total if stop is None else stop)]


def _placed(plan: PromptPlan, index: int, lists: Lists) -> Ask:
    """Ask number `index`: one of the plan's own, or one of an extra, whose other words are dealt by another seed."""
    extra, number = place(plan.extra, plan.count, index)
    if extra is None:
        designs = DESIGNS[plan.design]
        number, turn = divmod(number, len(designs))  # each design deals its lists to its own asks only
        return replace(_ask(plan, plan.seed, number, designs[turn], lists[designs[turn]]), index=index)
    fixed = {kind: word for kind in FIELDS[TINY] if (word := getattr(extra, kind))}
    seed = int(digest([plan.seed, extra.after, extra.about, fixed])[:12], 16)
    return replace(_ask(plan, seed, number, TINY, lists[TINY]), index=index, extra=True, about=extra.about, **fixed)


def _ask(plan: PromptPlan, seed: int, number: int, design: str, lists: dict[str, tuple[str, ...]]) -> Ask:
    words = {field: dealt(seed, FIELDS[design][field], entries, number) for field, entries in lists.items()}
    features: tuple[str, ...] = ()
    if design != SIMPLE:
        rng = random.Random(f"{seed}/features/{number}")
        features = tuple(each for each in FEATURES if rng.random() < plan.features)
    paragraphs = None if design == TINY else int(dealt(seed, "paragraphs", plan.paragraphs, number))
    return Ask(number, features=features, design=design, paragraphs=paragraphs, **words)


def groups(plan: PromptPlan, start: int = 0, stop: int | None = None) -> Iterator[list[Ask]]:
    """The asks of requests number `start` to `stop` (default: all of them), the last one not included.

    Each asks for as many; none for the plan's own and for an extra's, as all counts are multiples of that.
    """
    size = plan.stories_per_request
    last = num_groups(plan) if stop is None else min(stop, num_groups(plan))
    for first in range(start, last, AT_A_TIME):
        asked = asks(plan, first * size, min(first + AT_A_TIME, last) * size)
        yield from (asked[at : at + size] for at in range(0, len(asked), size))


def num_groups(plan: PromptPlan) -> int:
    """How many requests the plan makes."""
    return plan.total // plan.stories_per_request
