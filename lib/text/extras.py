"""Extras: further asks of a plan, about what the stories hold too little of.

In:   a plan's count and its extras: each so many asks about something, put in after so many of the plan's own
Out:  which extra an ask belongs to, and its number there

Asks stand in the order in which they were thought of: an extra comes after the stories there were when it was added,
and whatever the plan grows by later comes after it. So the same requests stay the first ones, none is asked again, and
every older part of every dataset stays as it is.
"""

from collections.abc import Sequence

from pydantic import Field

from lib.store import Config


class Extra(Config):
    """Asks that fix some of the words which the plan would deal."""

    count: int = Field(ge=1, description="how many more stories to ask for")
    after: int = Field(ge=0, description="how many of the plan's own asks come before them")
    about: str = Field("", description="what they shall be about, said in the prompt")
    verb: str = Field("", description="instead of the plan's verbs")
    noun: str = Field("", description="instead of the plan's nouns")
    adjective: str = Field("", description="instead of the plan's adjectives")


def place(extras: Sequence[Extra], count: int, index: int) -> tuple[Extra | None, int]:
    """The extra that ask `index` belongs to, and its number in it; (None, number) for one of the plan's own asks."""
    passed = 0  # asks of the extras before
    for extra in sorted(extras, key=lambda each: each.after):
        start = min(extra.after, count) + passed
        if index < start:
            break
        if index < start + extra.count:
            return extra, index - start
        passed += extra.count
    return None, index - passed


def whole(count: int, size: int) -> int:
    """`count` rounded up to a multiple of `size`."""
    return -(-count // size) * size
