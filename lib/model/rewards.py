"""Rewards: prompts and the stories they got in, one number a story out.

In:   weights by name; a name is one of REWARDS, or the dotted path of any Python callable (my_module.my_reward)
Out:  Rewards: the weighted sum, and each part of it
On:   for `concept` the packaged MiniLM (extra `embed`); for `judge` a language model (lib/text/judge.py)

A reward is anything that can be called with (prompts, stories) and returns a float for each.
"""

import importlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from lib.errors import UserError
from lib.store import Progress
from lib.text.judge import Judge, JudgeConfig
from lib.text.words import follows


class Reward(Protocol):
    """How good each story is as an answer to its prompt."""

    def __call__(self, prompts: Sequence[str], stories: Sequence[str]) -> Sequence[float]: ...


class Concept:
    """The cosine of a story with the concept's text (all-MiniLM-L6-v2), -1 to 1."""

    def __init__(self, concept: str) -> None:
        from lib.model.minilm import MiniLM

        self.minilm = MiniLM()
        self.concept_D = self.minilm.embed([concept])[0]

    def __call__(self, prompts: Sequence[str], stories: Sequence[str]) -> list[float]:
        return (self.minilm.embed(list(stories)) @ self.concept_D).tolist()


class Words:
    """The share, 0 to 1, of the prompt's content words that the story holds: all, where it opens with the prompt."""

    def __call__(self, prompts: Sequence[str], stories: Sequence[str]) -> list[float]:
        return [follows(prompt, story) for prompt, story in zip(prompts, stories, strict=True)]


@dataclass(frozen=True)
class Needs:
    """What the named rewards are made with."""

    concept: str
    judge: JudgeConfig | None = None
    progress: Progress = lambda *_: None


def _judge(needs: Needs) -> Reward:
    if needs.judge is None:
        raise UserError("the reward judge needs to know whom to ask: give judge.model (and judge.base_url)")
    return Judge(needs.judge, needs.progress)


REWARDS: dict[str, Callable[[Needs], Reward]] = {
    "concept": lambda needs: Concept(needs.concept),
    "words": lambda _: Words(),
    "judge": _judge,
}


@dataclass(frozen=True)
class Scores:
    total: list[float]
    parts: Mapping[str, list[float]]  # by name, before weights


class Rewards:
    """A weighted sum of rewards. One with the weight 0 is not computed."""

    def __init__(
        self,
        weights: Mapping[str, float],
        *,
        concept: str,
        judge: JudgeConfig | None = None,
        progress: Progress = lambda *_: None,
    ) -> None:
        self.weights = {name: weight for name, weight in weights.items() if weight}
        if not self.weights:
            raise UserError(f"found rewards {dict(weights)}, expected at least one with a weight that is not 0")
        needs = Needs(concept, judge, progress)
        self.rewards = {name: REWARDS[name](needs) if name in REWARDS else imported(name) for name in self.weights}

    def __call__(self, prompts: Sequence[str], stories: Sequence[str]) -> Scores:
        parts = {name: checked(name, reward(prompts, stories), len(stories)) for name, reward in self.rewards.items()}
        total = [math.fsum(self.weights[name] * parts[name][i] for name in parts) for i in range(len(stories))]
        return Scores(total, parts)


def imported(path: str) -> Reward:
    """The callable at a dotted path. UserError where there is none."""
    module, _, name = path.rpartition(".")
    try:
        reward = getattr(importlib.import_module(module), name) if module else None
    except (ImportError, AttributeError) as error:
        raise UserError(f"found reward {path!r}, which cannot be imported ({error})") from error
    if not callable(reward):
        raise UserError(f"found reward {path!r}, expected {', '.join(REWARDS)} or the dotted path of a callable")
    return reward


def checked(name: str, values: Sequence[float], expected: int) -> list[float]:
    """The values as floats; UserError unless there is a finite one for each story."""
    given = list(values) if isinstance(values, Iterable) else [values]
    floats = [number(value) for value in given]
    if values is None or len(floats) != expected or not all(map(math.isfinite, floats)):
        odd = [value for value, known in zip(given, floats, strict=True) if not math.isfinite(known)]
        found = repr(odd[0]) if odd else f"{len(floats)} values"
        raise UserError(f"the reward {name!r} gave {found} for {expected} stories, expected one finite number each")
    return floats


def number(value: Any) -> float:
    """`value` as a float; NaN for what is no number, such as None."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # the last: a tensor of several
        return math.nan
