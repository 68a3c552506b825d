"""What the grammar makes of a theme, a topic, a style, a teller, a first word and a number of paragraphs.

In:   these, as a prompt names them; data/words/{themes,topics,styles,personas,first_words}.txt
Out:  a moral, nouns, features, sentences; paragraphs regrouped

It is a grammar, so this is how far it goes: a theme is what is learned at the end; a topic is one thing of it, with
which the story deals; a style is features and a last sentence; a teller is a sentence in which they speak; a first word
begins a sentence that sets the scene. What stands in no list is named in a sentence of its own, and no more.
"""

import functools

from lib.text.storyteller import words


@functools.cache
def _columns(name: str) -> dict[str, tuple[str, ...]]:
    """A list's entries, each with its further columns."""
    lines = (words.FOLDER / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    rows = ([cell.strip() for cell in line.split("|")] for line in lines if line.strip() and not line.startswith("#"))
    return {row[0]: tuple(row[1:]) for row in rows}


def moral_of(theme: str) -> str:
    """What one learns, after "it is good to"."""
    return _columns("themes").get(theme, (f"think about {theme}",))[0]


def nouns_of(topic: str) -> tuple[str, ...]:
    """Nouns that belong to a topic: its list's, else those of our nouns that it names, else its last word."""
    listed = _columns("topics").get(topic)
    if listed:
        return tuple(listed[0].split())
    named = [word.strip(".,!?'\"").lower() for word in topic.split()]
    both = (form for word in named for form in (word, word.removesuffix("s")))
    ours = tuple(dict.fromkeys(form for form in both if form in words.known("noun")))
    return ours or tuple(word for word in named[-1:] if word.isalpha())


def features_of(style: str) -> tuple[str, ...]:
    features = _columns("styles").get(style, ("", ""))[0]
    return tuple(each.strip() for each in features.split(",") if each.strip())


def first_sentence(first_word: str) -> str:
    """A sentence that begins with this word, whatever word it is."""
    capital = first_word[0].upper() + first_word[1:]
    entry = _first_words().get(first_word.lower())
    if entry is None:
        return f"{capital}! That was the first word anybody said that day."
    return f"{capital} {' '.join(entry[2:])}".replace(" ,", ",")


@functools.cache
def _first_words() -> dict[str, list[str]]:
    return {entry[0]: entry for entry in words.entries(words.FOLDER / "first_words.txt")}


def last_sentences(style: str, persona: str) -> list[str]:
    """What comes after the end: of the style, and of whoever tells the story."""
    says = _columns("styles").get(style, ("", ""))[1]
    unknown = f"This story was told by {persona}." if persona else ""
    return [each for each in (says, _columns("personas").get(persona, (unknown,))[0]) if each]


def regrouped(paragraphs: list[list[str]], count: int) -> list[list[str]]:
    """The same texts in `count` paragraphs, as many in each as in the others; in fewer where there are fewer texts."""
    texts = [text for paragraph in paragraphs for text in paragraph]
    count = min(count, len(texts))
    cuts = [len(texts) * n // count for n in range(count + 1)]
    return [texts[start:end] for start, end in zip(cuts, cuts[1:], strict=False)]
