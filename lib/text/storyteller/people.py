"""Who, where and when of one story: fills every key of plot.py but the verb's.

In:   a random generator, the asked noun and adjective
Out:  the keys with their words; the adjective stands with the hero, the noun or the day, where it fits best
"""

import random

from lib.text.storyteller import cast, words

# In the order of PRONOUN_KEYS.
PRONOUNS = {
    "she": ("she", "her", "her", "herself"),
    "he": ("he", "him", "his", "himself"),
    "it": ("it", "it", "its", "itself"),
}
PRONOUN_KEYS = {
    "hero": ("he", "him", "his", "himself"),
    "friend": ("fhe", "fhim", "fhis"),
    "helper": ("hhe", "hhim", "hhis"),
    "noun": ("xe", "xim", "xis"),
}
CAPITALS = ("he", "his", "fhe", "fhis", "hhe", "hhis", "h", "home")
Somebody = tuple[str, str, str]  # what ("rabbit"), name, she or he


def pick_people(rng: random.Random, noun: words.Noun, adjective: str) -> dict[str, str]:
    """Hero, friend, helper, place, day, and the asked noun with its adjective."""
    kind, name, sex = hero = _somebody(rng, noun.word, rng.random() < 0.6, ("", ""))
    a_child = kind in ("girl", "boy")
    friend_kind, friend, friend_sex = _somebody(rng, noun.word, a_child, hero[:2])
    helper = rng.choice(
        [each for each in (cast.CHILD_HELPERS if a_child else cast.ANIMAL_HELPERS) if each != noun.word]
    )
    pronouns = {
        "hero": sex,
        "friend": friend_sex,
        "helper": cast.HELPER_SEX.get(helper) or rng.choice(("she", "he")),
        "noun": "it" if noun.kind == "animal" else rng.choice(("she", "he")),
    }
    keys = {key: PRONOUNS[pronouns[who]][n] for who, names in PRONOUN_KEYS.items() for n, key in enumerate(names)}
    look = adjective if words.adjective_kind(adjective) == "hero" else rng.choice(cast.HERO_LOOKS)
    keys |= {"N": name, "k": kind, "ak": words.with_article(f"{look} {kind}".strip()), "F": friend}
    keys |= {
        "afk": words.with_article(f"{rng.choice(cast.FRIEND_LOOKS)} {friend_kind}"),
        "h": f"{keys['his']} {helper}",
    }
    keys |= _noun_phrases(rng, noun, adjective) | _where_and_when(rng, noun, adjective)
    keys |= {key[0].upper() + key[1:]: _capital(keys[key]) for key in CAPITALS}
    return keys | {"ax_cap": _capital(keys["ax"]), "h_gave": keys["H"] + " gave"}


def _somebody(rng: random.Random, noun: str, child: bool, but: tuple[str, str]) -> Somebody:
    """A child, or an animal that is not the asked noun; no animal of the kind of `but`, no name with its initial."""
    sex = rng.choice(("she", "he"))
    names = (cast.CHILDREN if child else cast.NAMED_ANIMALS)[sex]
    name = rng.choice([each for each in names if each[0] != but[1][:1]])
    if child:
        return ("girl" if sex == "she" else "boy"), name, sex
    return rng.choice([each for each in cast.ANIMALS if each not in (noun, but[0])]), name, sex


def _noun_phrases(rng: random.Random, noun: words.Noun, adjective: str) -> dict[str, str]:
    asked = words.adjective_kind(adjective) == "thing"
    look = adjective if asked else rng.choice(cast.LOOKS[cast.WHAT[noun.kind]])
    described = f"{look} {noun.phrase}" if look and look not in noun.phrase.split() else noun.phrase
    with_article = words.with_article
    return {"x": noun.phrase, "adjx": described, "ax": with_article(described), "ax0": with_article(noun.phrase)}


def _where_and_when(rng: random.Random, noun: words.Noun, adjective: str) -> dict[str, str]:
    asked = words.adjective_kind(adjective) == "day"
    day = f"One {adjective} day" if asked else rng.choice(cast.DAYS)
    place, to = rng.choice([each for each in cast.PLACES if noun.word not in each[0].split()])
    return {
        "p": place,
        "to": to,
        "from_p": "from " + to.removeprefix("to "),
        "home": rng.choice([each for each in cast.HOMES if noun.word not in each.split()]),
        "day": day,
        "day_low": day[0].lower() + day[1:],
        "adjective_day": words.with_article(f"{adjective} day"),
    }


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
