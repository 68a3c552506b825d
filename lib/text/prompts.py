"""Prompts: which stories are asked of a teacher, and in which words.

In:   a frozen PromptPlan: how many, the seed, the word lists, how likely each feature is
Out:  `asks(plan, start, stop)`, a pure function of the plan's seed and lists: ask i is the same whatever the count;
      `messages(ask)`, chat messages for any teacher; RESPONSE_FORMAT, the JSON that the answer must be
Relies on: data/words/*.txt. The design is TinyStories' (arXiv 2305.07759 section 2): a random verb, noun and adjective
      and a random subset of features make the stories differ from one another.
"""

import functools
import hashlib
import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from lib.errors import UserError
from lib.store import Config, digest
from lib.text.extras import Extra, place

WORDS = Path(__file__).parents[2] / "data" / "words"
FEATURES = ("dialogue", "plot twist", "bad ending", "moral value", "foreshadowing", "conflict")
KINDS = ("verbs", "nouns", "adjectives")

SYSTEM = (
    "You write very short stories for very young children. You use only words that a child of three or four knows, "
    "short sentences, and you always tell the story to its end."
)
RESPONSE_FORMAT: dict[str, Any] = {
    "type": "json_schema",
    "json_schema": {
        "name": "story_with_summary",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {
                "story": {"type": "string", "description": "the whole story, two to five paragraphs"},
                "summary": {"type": "string", "description": 'one sentence that begins with "a story about"'},
            },
            "required": ["story", "summary"],
            "additionalProperties": False,
        },
    },
}


class PromptPlan(Config):
    """What to ask for. Two plans that differ only in `count` ask the same first stories."""

    count: int = Field(3000, ge=1, description="how many stories to ask for")
    seed: int = Field(0, ge=0, description="another seed asks for other combinations")
    verbs: str = Field("verbs", description="word list: a name in data/words, or the path of a .txt file")
    nouns: str = Field("nouns", description="word list, as for verbs")
    adjectives: str = Field("adjectives", description="word list, as for verbs")
    features: float = Field(0.3, ge=0.0, le=1.0, description="how likely each of the six features is")
    extra: tuple[Extra, ...] = Field((), description="further asks, about what the stories hold too little of")
    words_digest: str = Field("", description="digest of the word lists; filled in: other words are another plan")

    @model_validator(mode="after")
    def _digest_words(self) -> "PromptPlan":
        lists = [word_list(getattr(self, kind)) for kind in KINDS]
        found = hashlib.sha256(repr(lists).encode()).hexdigest()[:16]
        if self.words_digest not in ("", found):
            raise ValueError(
                f"found word lists with digest {found}, expected {self.words_digest}, with which this plan was made; "
                "restore the lists, or leave words_digest out to make another plan"
            )
        object.__setattr__(self, "words_digest", found)  # frozen for everybody else
        return self

    @property
    def total(self) -> int:
        """All asks: the plan's own and the extra ones."""
        return self.count + sum(each.count for each in self.extra)


@dataclass(frozen=True)
class Ask:
    """One story to ask for."""

    index: int
    verb: str
    noun: str
    adjective: str
    features: tuple[str, ...]
    about: str = ""


def asks(plan: PromptPlan, start: int = 0, stop: int | None = None) -> list[Ask]:
    """Asks number `start` to `stop` (default: all of them), the last one not included."""
    return [_placed(plan, index) for index in range(start, plan.total if stop is None else stop)]


def _placed(plan: PromptPlan, index: int) -> Ask:
    """Ask number `index`: one of the plan's own, or one of an extra, whose other words are dealt by another seed."""
    extra, number = place(plan.extra, plan.count, index)
    if extra is None:
        return replace(_ask(plan, number), index=index)
    fixed = {kind: word for kind in ("verb", "noun", "adjective") if (word := getattr(extra, kind))}
    seed = int(digest([plan.seed, extra.after, extra.about, fixed])[:12], 16)
    return replace(_ask(plan.model_copy(update={"seed": seed}), number), index=index, about=extra.about, **fixed)


def _ask(plan: PromptPlan, index: int) -> Ask:
    verb, noun, adjective = (_dealt(plan.seed, kind, getattr(plan, kind), index) for kind in KINDS)
    rng = random.Random(f"{plan.seed}/features/{index}")
    return Ask(index, verb, noun, adjective, tuple(each for each in FEATURES if rng.random() < plan.features))


def _dealt(seed: int, kind: str, name: str, index: int) -> str:
    """Word number `index` of a list dealt like cards, shuffled anew each round: no word gets two ahead of another."""
    words = word_list(name)
    turn, place = divmod(index, len(words))
    return words[_shuffled(seed, kind, len(words), turn)[place]]


@functools.lru_cache(maxsize=64)
def _shuffled(seed: int, kind: str, length: int, turn: int) -> tuple[int, ...]:
    return tuple(random.Random(f"{seed}/{kind}/{turn}").sample(range(length), length))


def word_list(name: str) -> tuple[str, ...]:
    """The words of a list in data/words, or of a file: the first word of each line that is not a comment."""
    path = Path(name) if name.endswith(".txt") or "/" in name else WORDS / f"{name}.txt"
    if not path.is_file():
        there = ", ".join(sorted(each.stem for each in WORDS.glob("*.txt")))
        raise UserError(f"found no word list {name!r} at {path}, expected one of {there} or the path of a .txt file")
    return _read_words(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _read_words(path: Path, changed: int) -> tuple[str, ...]:
    lines = path.read_text(encoding="utf-8").splitlines()
    words = tuple(dict.fromkeys(line.split()[0] for line in lines if line.strip() and not line.startswith("#")))
    if not words:
        raise UserError(f"the word list {path} holds no word, expected one a line; fill it or name another list")
    return words


def messages(ask: Ask) -> list[dict[str, str]]:
    """The chat messages that ask for this story and its summary."""
    wanted = f" Give the story {_joined(ask.features)}." if ask.features else ""
    about = f" Let the story be about {ask.about}." if ask.about else ""
    text = (
        "Tell a short story in two to five paragraphs, about 130 words long, that a three-year-old understands. "
        f'Use the verb "{ask.verb}", the noun "{ask.noun}" and the adjective "{ask.adjective}" in it.{about}{wanted} '
        'Then sum the story up in one sentence that begins with "a story about" and names who it is about. '
        'Answer with JSON that has two fields, "story" and "summary".'
    )
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]


def _joined(features: tuple[str, ...]) -> str:
    named = [each if each in ("dialogue", "foreshadowing") else f"a {each}" for each in features]
    return named[0] if len(named) == 1 else ", ".join(named[:-1]) + " and " + named[-1]
