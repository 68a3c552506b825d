"""One story and its summary, as a pure function of what was asked and a number.

In:   a Wish: verb, noun, adjective, features; theme, style, teller, first word and paragraphs where they were asked for
Out:  `Told(story, summary)`: paragraphs parted by one newline; the summary starts with "a story about"
Relies on: the tables in beats.py and plots_*.py; people.py for who, where and when; words.py for forms; axes.py for
      what a theme, a style, a teller and a first word become, which says how far that goes
"""

import json
import random
from dataclasses import dataclass

from lib.text.storyteller import axes, beats, cast, words
from lib.text.storyteller.people import pick_people
from lib.text.storyteller.plot import Plot
from lib.text.storyteller.plots_creatures import PLOTS as CREATURES
from lib.text.storyteller.plots_places import PLOTS as PLACES
from lib.text.storyteller.plots_things import PLOTS as THINGS
from lib.text.storyteller.plots_things_more import PLOTS as MORE_THINGS

PLOTS = THINGS + MORE_THINGS + CREATURES + PLACES
MOST_WORDS = 240
PLAIN_INTROS = tuple(intro for intro in beats.INTROS if not intro.startswith("Once upon a time"))
BY_KIND = {kind: tuple(plot for plot in PLOTS if kind in plot.kinds) for kind in cast.WHAT}
Paragraph = list[str]


@dataclass(frozen=True)
class Told:
    story: str
    summary: str


@dataclass(frozen=True)
class Wish:
    """What a prompt asks for. A topic has become its noun."""

    verb: str
    noun: str
    adjective: str
    features: tuple[str, ...] = ()
    theme: str = ""
    style: str = ""
    persona: str = ""
    first_word: str = ""
    paragraphs: int = 0  # 0: as many as the story takes

    @property
    def bad(self) -> bool:
        return "bad ending" in self.features


def tell(wish: Wish, seed: int) -> Told:
    """The story for this wish and seed; the same pair always gives the same text."""
    told = _tell(wish, random.Random(seed))
    while len(told.story.split()) > MOST_WORDS:  # one in ten thousand, where all six features are asked for
        seed += 1
        told = _tell(wish, random.Random(seed))
    return told


def written(told: list[Told], as_json: bool) -> str:
    """The answer that holds these stories: JSON, one object or a list, or text under headings."""
    if as_json:
        objects = [vars(each) for each in told]
        return json.dumps(objects[0] if len(objects) == 1 else {"stories": objects})
    numbers = [""] if len(told) == 1 else [f" {n}" for n in range(1, len(told) + 1)]
    texts = (f"Story{n}: {each.story}\n\nSummary{n}: {each.summary}" for n, each in zip(numbers, told, strict=True))
    return "\n\n".join(texts)


def _tell(wish: Wish, rng: random.Random) -> Told:
    noun, verb = words.noun(wish.noun), words.verb(wish.verb)
    plot = rng.choice(BY_KIND[noun.kind])
    keys = pick_people(rng, noun, wish.adjective) | _verb_phrases(verb)
    moral = axes.moral_of(wish.theme) if wish.theme else rng.choice(plot.moral)
    paragraphs = _paragraphs(rng, plot, wish, moral)
    story = "\n".join(" ".join(paragraph) for paragraph in paragraphs).format_map(keys)
    return Told(story, _summary(rng, plot, wish, moral).format_map(keys))


def _verb_phrases(verb: words.Verb) -> dict[str, str]:
    return {
        "vp": f"{verb.base} {verb.rest}".strip(),
        "vpd": f"{verb.past} {verb.rest}".strip(),
        "vps": f"{words.third(verb.base)} {verb.rest}".strip(),
    }


def _paragraphs(rng: random.Random, plot: Plot, wish: Wish, moral: str) -> list[Paragraph]:
    """The chosen texts by paragraph, keys still in them."""
    hint, echo = rng.choice(beats.FORESHADOWING[:-1] if wish.bad else beats.FORESHADOWING)
    quarrel, peace = rng.choice(beats.CONFLICTS)
    foreshadowed, fought = "foreshadowing" in wish.features, "conflict" in wish.features
    early, late = _verb_sentences(rng, words.verb(wish.verb).kind, wish.bad)
    opening = [rng.choice(PLAIN_INTROS if wish.first_word else beats.INTROS), early, hint if foreshadowed else ""]
    problem = _problem(rng, plot, wish)
    middle = [rng.choice(plot.attempt), quarrel if fought else "", "" if wish.bad else rng.choice(plot.turn)]
    end = _climax(rng, plot, wish, peace if fought else "", late) + [echo if foreshadowed else ""]
    end += _ending(rng, wish, moral)
    if wish.bad:  # with no turn, the middle is too short to stand alone
        told = [opening, problem + middle, end]
    elif rng.random() < 0.5:
        told = [opening + problem, middle, end]
    else:
        told = [opening, problem, middle, end]
    told = _introduced(rng, [[text for text in paragraph if text] for paragraph in told])
    return [[_named(paragraph[0]), *paragraph[1:]] for paragraph in _framed(wish, told)]


def _verb_sentences(rng: random.Random, kind: str, bad: bool) -> tuple[str, str]:
    """(in the opening, near the end): one of the two holds the asked verb."""
    if kind == "h" and not bad and rng.random() < 0.2:
        return "", rng.choice(beats.JOYS)
    return rng.choice({"h": beats.HOBBIES, "m": beats.MISHAPS, "u": beats.UNKNOWN_VERBS}[kind]), ""


def _problem(rng: random.Random, plot: Plot, wish: Wish) -> Paragraph:
    want = rng.choice(plot.want)
    about_the_day = words.adjective_kind(wish.adjective) == "day"
    if about_the_day and "{day" not in want:
        want = "It was {adjective_day}. " + want
    # No blue sky on the rainy day that was asked for.
    extra = rng.choice(beats.EXTRAS) if not about_the_day and rng.random() < 0.25 else ""
    talk = rng.choice(plot.talk) if "dialogue" in wish.features or rng.random() < 0.45 else ""
    return [extra, want, talk]


def _climax(rng: random.Random, plot: Plot, wish: Wish, peace: str, late: str) -> Paragraph:
    twisted = "plot twist" in wish.features
    if wish.bad:
        return [rng.choice(beats.TWISTS["sad"]) if twisted else "", rng.choice(plot.bad)]
    twist = rng.choice(beats.TWISTS[cast.WHAT[words.noun(wish.noun).kind]]) if twisted else ""
    return [rng.choice(plot.solve), peace, twist, late]


def _ending(rng: random.Random, wish: Wish, moral: str) -> Paragraph:
    spoken = "dialogue" in wish.features or rng.random() < 0.15
    chat = rng.choice(beats.SAD_CHATS if wish.bad else beats.CHATS) if spoken else ""
    if "moral value" in wish.features:
        return [chat, rng.choice(beats.MORALS).replace("{moral}", moral)]
    if spoken and rng.random() < 0.5:
        return [chat]
    return [chat, rng.choice(beats.SAD_ENDINGS if wish.bad else beats.ENDINGS)]


def _introduced(rng: random.Random, told: list[Paragraph]) -> list[Paragraph]:
    """The friend is introduced after the hero if anything below speaks of one."""
    everything = " ".join(text for paragraph in told for text in paragraph)
    if "{F" in everything or "They " in everything:
        told[0].insert(1, rng.choice(beats.FRIENDS))
        if len(told[0]) > 2:
            told[0][2] = _named(told[0][2])  # after the friend, "she" could be either
    return told


def _framed(wish: Wish, told: list[Paragraph]) -> list[Paragraph]:
    """With the first and the last sentences that were asked for, in as many paragraphs."""
    first = [axes.first_sentence(wish.first_word)] if wish.first_word else []
    last = axes.last_sentences(wish.style, wish.persona)
    told = [first + told[0], *told[1:-1], told[-1] + last]
    return axes.regrouped(told, wish.paragraphs) if wish.paragraphs else told


def _named(text: str) -> str:
    """`text` with the hero's name where it begins with the hero's pronoun: no paragraph does."""
    for pronoun, name in (("{He} ", "{N} "), ("{His} ", "{N}'s ")):
        if text.startswith(pronoun):
            return name + text.removeprefix(pronoun)
    return text


def _summary(rng: random.Random, plot: Plot, wish: Wish, moral: str) -> str:
    """One sentence in the manner of a person asking for such a story; names hero, verb, noun and adjective."""
    does = "{vps}" if words.verb(wish.verb).kind == "m" else rng.choice(("loves to {vp}", "likes to {vp}"))
    end = rng.choice(plot.sad if wish.bad else plot.happy)
    if "moral value" in wish.features and not wish.bad and (wish.theme or rng.random() < 0.5):
        end = f"learns to {moral}".replace("with our", "with").replace(" our ", " {his} ")
    day = " on {adjective_day}" if words.adjective_kind(wish.adjective) == "day" else ""
    surprise = ", with a surprise at the end" if "plot twist" in wish.features and rng.random() < 0.5 else ""
    return "a story about {ak} named {N} who " + does + ", " + rng.choice(plot.told) + day + " and " + end + surprise
