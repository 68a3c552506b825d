"""Tasks about words and stories, with their answers: what the storyteller writes when it is asked for tasks.

In:   chat messages; a seed
Out:  how many tasks they ask for; that many, as a teacher would write them, each with an answer that is right
Relies on: story.py for stories, words.py for forms. As with the stories: a seeded grammar, no language model.
"""

import json
import random
import re
from collections.abc import Callable

from lib.text.storyteller import cast, words
from lib.text.storyteller.story import Told, Wish, tell

ASKED = re.compile(r"\bWrite (\d{1,3}) more\b.*\"tasks\"", re.DOTALL)
MOST = 100
Task = tuple[str, str, str]  # instruction, input, output
NUMBERS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
FINDS = ("finds", "gets", "buys", "picks up", "is given")
GIVES = ("gives away", "loses", "drops", "hands out")


def asked(messages: list[dict]) -> int:
    """How many tasks these messages ask for; 0 where they ask for a story."""
    found = ASKED.search(str(messages[-1].get("content") or ""))
    return min(int(found[1]), MOST) if found else 0


def answer(count: int, seed: int, as_json: bool) -> str:
    """So many tasks, as JSON or as a numbered list."""
    rng = random.Random(seed)
    made = [rng.choice(KINDS)(rng) for _ in range(count)]
    if as_json:
        names = ("instruction", "input", "output")
        return json.dumps({"tasks": [dict(zip(names, task, strict=True)) for task in made]})
    return "\n\n".join(
        f"{n}. Instruction: {told}\nInput: {given or '<noinput>'}\nOutput: {out}"
        for n, (told, given, out) in enumerate(made, 1)
    )


# ---- what they draw from


def _word(rng: random.Random, kind: str) -> str:
    return rng.choice(words.listed(kind))


def _nouns(rng: random.Random, count: int, *kinds: str) -> list[str]:
    fitting = [each for each in words.listed("nouns") if not kinds or words.noun(each).kind in kinds]
    return rng.sample(fitting, count)


def _a(noun: str) -> str:
    return words.with_article(words.noun(noun).phrase)


def _verb(rng: random.Random) -> words.Verb:
    return words.verb(_word(rng, "verbs"))


def _story(rng: random.Random) -> Told:
    wish = Wish(_word(rng, "verbs"), _word(rng, "nouns"), _word(rng, "adjectives"))
    return tell(wish, rng.randrange(2**32))


def _child(rng: random.Random) -> tuple[str, str]:
    sex = rng.choice(("she", "he"))
    return rng.choice(cast.CHILDREN[sex]), sex


# ---- the kinds of task


def _tell(rng: random.Random) -> Task:
    told = _story(rng)
    return f"{rng.choice(('Write', 'Tell me', 'Please write'))} {told.summary}.", "", told.story


def _sum_up(rng: random.Random) -> Task:
    told = _story(rng)
    who = told.summary.split(" named ")[0].removeprefix("a story about ")
    ways = (f"In one sentence, what happens to {who} in this story?", f"Sum up the story of {who} for a busy parent.")
    return rng.choice(ways), told.story, f"It is {told.summary}."


def _title(rng: random.Random) -> Task:
    told, (noun,) = _story(rng), _nouns(rng, 1, "thing")
    name = re.search(r" named (\w+)", told.summary)[1]
    phrase = words.noun(noun).phrase
    return f"Think of a title for a tale in which {name} meets {_a(noun)}.", "", f"{name} and the {phrase.title()}"


def _sum(rng: random.Random) -> Task:
    (name, sex), (noun,) = _child(rng), _nouns(rng, 1, "animal")
    first, second = rng.randint(2, 6), rng.randint(2, 6)
    more, less = rng.choice(FINDS), rng.choice(GIVES)
    gains = rng.random() < 0.5 or second >= first
    total = first + second if gains else first - second
    start = f"{name} draws {NUMBERS[first]} pages about {_a(noun)} and {more if gains else less} {NUMBERS[second]}"
    start = start.replace(f"and {more}", f"and then {more}") + (" more" if gains else "")
    return f"{start}. How many does {sex} have now?", "", f"{name} has {NUMBERS[total]}."


def _use(rng: random.Random) -> Task:
    verb, (noun,), adjective = _verb(rng), _nouns(rng, 1), _word(rng, "adjectives")
    name, _ = _child(rng)
    ask = f'Use the words "{verb.base}", "{noun}" and "{adjective}" in two short sentences.'
    seen = words.with_article(f"{adjective} {words.noun(noun).phrase}")
    return ask, "", f"{name} saw {seen}. Then it was time to {verb.base} {verb.rest}".strip() + "."


def _past(rng: random.Random) -> Task:
    verb, (name, _) = _verb(rng), _child(rng)
    now, then = f"{words.third(verb.base)} {verb.rest}".strip(), f"{verb.past} {verb.rest}".strip()
    ways = ("Say that this happened yesterday.", "Move the sentence into the past.", "Tell it as if it was long ago.")
    return f"{rng.choice(ways)[:-1]}: {name} {now}.", "", f"{name} {then}."


def _sort(rng: random.Random) -> Task:
    chosen = _nouns(rng, rng.randint(4, 6))
    by = rng.choice(("from A to Z", "from Z to A", "by length, the shortest first"))
    key = {"from A to Z": sorted(chosen), "from Z to A": sorted(chosen, reverse=True)}
    ordered = key.get(by) or sorted(chosen, key=len)
    return f"Put {', '.join(chosen[:-1])} and {chosen[-1]} in order, {by}.", "", ", ".join(ordered)


def _odd_one(rng: random.Random) -> Task:
    kind, other = rng.sample(("thing", "animal", "place", "person"), 2)
    same, (odd,) = _nouns(rng, 3, kind), _nouns(rng, 1, other)
    shown = rng.sample([*same, odd], 4)
    told = {"thing": "things", "animal": "animals", "place": "places", "person": "people"}[kind]
    return (
        f"Which does not belong with the others: {', '.join(shown[:3])} or {shown[3]}?",
        "",
        f"{odd}; the others are {told}",
    )


def _what_is(rng: random.Random) -> Task:
    (noun,) = _nouns(rng, 1)
    kind = words.noun(noun).kind
    ways = (f'Does the word "{noun}" name a person, a place, an animal or a thing?', f"What sort of word is {noun}?")
    return rng.choice(ways), "", f"It names {words.with_article(kind)}."


def _count(rng: random.Random) -> Task:
    sentence = re.split(r"(?<=[.!?])\s", _story(rng).story)[0]
    return "Count the words of this first line of a story.", sentence, str(len(sentence.split()))


def _list(rng: random.Random) -> Task:
    at, _ = rng.choice(cast.PLACES)
    name, _ = _child(rng)
    verb = _verb(rng)
    shown = _nouns(rng, rng.randint(3, 5), "thing", "animal")
    ask = f"List {NUMBERS[len(shown)]} things that {name} might see {at} on the way to {verb.base} {verb.rest}".strip()
    return ask + ".", "", "\n".join(f"- {_a(noun)}" for noun in shown)


def _lesson(rng: random.Random) -> Task:
    told = tell(
        Wish(_word(rng, "verbs"), _word(rng, "nouns"), _word(rng, "adjectives"), ("moral value",)), rng.randrange(2**32)
    )
    who = told.summary.split(" named ")[0].removeprefix("a story about ")
    return (
        f"What can a child learn from the tale of {who}? Use its last sentence.",
        told.story,
        _last_sentence(told.story),
    )


def _last_sentence(story: str) -> str:
    return re.split(r"(?<=[.!?])\s", story)[-1]


KINDS: tuple[Callable[[random.Random], Task], ...] = (
    _tell, _tell, _sum_up, _title, _sum, _use, _past, _sort, _odd_one, _what_is, _count, _list, _list, _lesson,
)  # fmt: skip
