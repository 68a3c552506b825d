"""Guards: is the reward earned by better stories, or by a trick?

In:   what the model writes on held-out prompts, before and during alignment
Out:  Health, the limits it breaks, and which model to keep
On:   counts of words; imports no torch, so that a config may hold Limits

The rule: at each look, a model that breaks a limit stops the updates. Kept is the model with the highest held-out
reward among the looks that broke none; the model that alignment started from is one of them. A run that was stopped
gets one look more, part of the way back to the start model (`step_back` in lib/model/alignment.py).

Between two looks every update's own stories are watched: where they break a limit that the first update's stories (the
start model's) set, a look follows at once, whatever `eval_every` says; and an update that is further than `kl` from the
reference ends the run. So a collapse is found out by the update after it: its stories are the collapsed model's. Where
the look before that update kept this very model, the start model is kept instead.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import Field

from lib.model.metrics import distinct_2
from lib.store import Config
from lib.text.words import content_words, stem, words


class Limits(Config):
    """What alignment may do to the text; the shares are of the start model's own numbers."""

    distinct_2: float = Field(0.8, ge=0, le=1, description="least distinct-2, as a share of the start model's")
    concept_per_100: float = Field(8.0, gt=0, description="most concept words in 100 words")
    share_ended: float = Field(0.8, ge=0, le=1, description="least share that ends, as a share of the start model's")
    val_bits_per_byte: float = Field(1.15, ge=1, description="most held-out bits per byte, over the start model's")
    kl: float = Field(
        1.0, gt=0, description="most nats a token from the start model, in an update's or a look's stories"
    )


@dataclass(frozen=True)
class Health:
    """A model's stories, at a look its answers to the held-out prompts, in numbers."""

    reward: float
    distinct_2: float
    concept_per_100: float
    share_ended: float
    val_bits_per_byte: float | None = None
    kl: float | None = None  # nats a generated token, against the start model


def concept_per_100(concept: str, stories: Sequence[str]) -> float:
    """How many of 100 words are a form of one of the concept's words. The seed's failure: "cat cat cat"."""
    wanted = {stem(word) for word in content_words(concept)}
    told = [stem(word) for story in stories for word in words(story)]
    return 100 * sum(word in wanted for word in told) / len(told) if told else 0.0


def health(
    *,
    concept: str,
    stories: Sequence[str],
    ended: Sequence[bool],
    reward: float,
    val_bits_per_byte: float | None = None,
    kl: float | None = None,
) -> Health:
    return Health(
        reward=reward,
        distinct_2=distinct_2(stories),
        concept_per_100=concept_per_100(concept, stories),
        share_ended=sum(ended) / len(ended),
        val_bits_per_byte=val_bits_per_byte,
        kl=kl,
    )


def breaches(now: Health, *, start: Health, limits: Limits) -> list[str]:
    """The limits that `now` breaks, in words; none is an empty list. What the start model does itself is no breach."""
    told = []
    for name in ("distinct_2", "share_ended"):
        if (value := getattr(now, name)) < (least := getattr(limits, name) * getattr(start, name)):
            told.append(f"{name} {value:.3f} is below {least:.3f}")
    if now.concept_per_100 > (most := max(limits.concept_per_100, start.concept_per_100)):
        told.append(f"concept_per_100 {now.concept_per_100:.2f} is above {most:.2f}")
    most = limits.val_bits_per_byte * (start.val_bits_per_byte or math.inf)
    if (now.val_bits_per_byte or 0.0) > most:
        told.append(f"val_bits_per_byte {now.val_bits_per_byte:.3f} is above {most:.3f}")
    if too_far := run_away(now.kl or 0.0, limits):
        told.append(too_far)
    return told


def run_away(kl: float, limits: Limits) -> str:
    """Why a model this far from the start model ends the run, in nats a token; empty where it does not."""
    return f"kl {kl:.3f} is above {limits.kl:.3f}" if kl > limits.kl else ""


def is_better(now: Health, *, best: Health, start: Health, limits: Limits) -> bool:
    """Whether `now` is to be kept instead of `best`."""
    return now.reward > best.reward and not breaches(now, start=start, limits=limits)
