"""The words in which stories are asked for.

In:   one ask, or the asks of one request
Out:  chat messages for any teacher. What they ask for is read again by lib/text/storyteller/wish.py
"""

from lib.text.prompts.plan import Ask

SYSTEM = (
    "You write very short stories for very young children. You use only words that a child of three or four knows, "
    "short sentences, and you always tell the story to its end."
)
OPENING = 'in one sentence that begins with "a story about" and names who it is about.'


def messages(*asks: Ask) -> list[dict[str, str]]:
    """The chat messages that ask for these stories and their summaries."""
    text = _one(asks[0]) if len(asks) == 1 else _several(asks)
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]


def _one(ask: Ask) -> str:
    return (
        f"Tell a short story in {_length(ask)}, that a three-year-old understands. {_wanted(ask)} "
        f"Then sum the story up {OPENING} "
        'Answer with JSON that has two fields, "story" and "summary".'
    )


def _several(asks: tuple[Ask, ...]) -> str:
    wanted = "\n".join(f"Story {n}: {_length(ask)}. {_wanted(ask)}" for n, ask in enumerate(asks, 1))
    return (
        f"Tell {len(asks)} short stories that a three-year-old understands. No two of them share people, places or "
        f"events.\n\n{wanted}\n\nSum each story up {OPENING} "
        f'Answer with JSON that has one field, "stories": a list of {len(asks)} objects in this order, each with two '
        'fields, "story" and "summary".'
    )


def _length(ask: Ask) -> str:
    if ask.paragraphs is None:
        return "two to five paragraphs, about 130 words long"
    return f"{ask.paragraphs} paragraph{'s' if ask.paragraphs > 1 else ''}, under 200 words long"


def _wanted(ask: Ask) -> str:
    """The sentences that say what this one story must hold."""
    wanted = []
    if ask.verb:
        wanted.append(f'Use the verb "{ask.verb}", the noun "{ask.noun}" and the adjective "{ask.adjective}" in it.')
    if ask.about:
        wanted.append(f"Let the story be about {ask.about}.")
    if ask.features:
        wanted.append(f"Give the story {_joined(ask.features)}.")
    if ask.theme:
        wanted.append(f'Its theme is "{ask.theme}", its topic is "{ask.topic}" and its style is "{ask.style}".')
        wanted.append(f"Tell it the way {ask.persona} would.")
    if ask.first_word:
        wanted.append(f'Begin it with the word "{ask.first_word.capitalize()}".')
    return " ".join(wanted)


def _joined(features: tuple[str, ...]) -> str:
    named = [each if each in ("dialogue", "foreshadowing") else f"a {each}" for each in features]
    return named[0] if len(named) == 1 else ", ".join(named[:-1]) + " and " + named[-1]
