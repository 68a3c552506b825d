"""Memory: what of a conversation the model is given together with the next request.

In:   the turns so far, oldest first; a request; a mode; the Template, the model's layout and the length of its rows
Out:  Given: ids, the strings that end the answer, how many of the oldest turns were left out for want of room
Pure functions. The modes are those of Ryan Li's chat bot (2023), with an EOS between turns:

    none       the request alone
    blocks     each earlier turn as a block of its own, with its answer; all that fit
    window k   blocks, but of the last k turns at most
    joined     the earlier requests and answers before the request, all in one instruction
    few-shot   examples, then the turns under titles that also end an answer: for any model, the base model too

A model that was taught one request a story (layouts natural and padded) knows none and few-shot alone.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lib.errors import UserError
from lib.text.requests import ASK, END, by_summary, instruction, rewritten
from lib.text.template import FEW_SHOT, Template, Turn, layout_of

MODES = ("none", "blocks", "window", "joined", FEW_SHOT)
WINDOW = 3  # turns
ANSWER = 4  # a conversation leaves at least one in so many positions of a row to the answer


@dataclass(frozen=True)
class Memory:
    """How much is remembered, and in which form. `most`: turns."""

    mode: str
    most: int | None = None

    def __str__(self) -> str:
        return self.mode if self.most is None else f"{self.mode} {self.most}"


@dataclass(frozen=True)
class Given:
    """What a model goes on from."""

    ids: list[int]
    stops: tuple[str, ...] = ()
    forgotten: int = 0  # of the oldest turns that the mode would have given, how many had no room


def modes_of(layout: str) -> tuple[str, ...]:
    """The modes that a model of this layout can be asked in; the first is its own."""
    return ("blocks", "window", "joined", "none", FEW_SHOT) if layout_of(layout).again else ("none", FEW_SHOT)


def memory_of(text: str | None, layout: str) -> Memory:
    """What a person chose: a mode, and behind `window` how many turns. None: the layout's own."""
    modes = modes_of(layout)
    found = re.fullmatch(r"([a-z-]+)(?:[ :=]+(\d{1,3}))?", modes[0] if text is None else text.strip().lower())
    mode, most = found.groups() if found else (None, None)
    if mode not in modes or (most is not None and (mode != "window" or int(most) < 1)):
        told = ", ".join("window K" if each == "window" else each for each in modes)
        why = "" if layout_of(layout).again else f": it was trained in layout {layout}, with one request a story"
        raise UserError(f"found memory {str(text)[:60]!r}, expected one of {told} for this model{why}")
    return Memory(mode, (int(most) if most else WINDOW) if mode == "window" else None)


def given(
    template: Template, layout: str, memory: Memory, turns: Sequence[Turn], request: str, *, max_length: int
) -> Given:
    """The ids before the answer. The newest turns that fit stay; the request always does, however long it is."""
    wanted: list[Turn] = []
    if memory.mode != "none":
        wanted, request = _answered(turns, request)
        wanted = wanted[-memory.most :] if memory.most else wanted
    form = _form(template, layout, memory, request)
    kept: list[Turn] = []
    ids = form(kept)
    while len(kept) < len(wanted):
        more = wanted[len(wanted) - len(kept) - 1 :]
        longer = form(more)
        if len(longer) > max_length - max_length // ANSWER:
            break
        kept, ids = more, longer
    stops = layout_of(FEW_SHOT).stop_strings if memory.mode == FEW_SHOT else ()
    return Given(ids, stops, len(wanted) - len(kept))


def _form(template: Template, layout: str, memory: Memory, request: str) -> Callable[[Sequence[Turn]], list[int]]:
    """Turns to ids."""
    if memory.mode == FEW_SHOT:
        return lambda turns: template.prefix(FEW_SHOT, request, turns=turns)
    if memory.mode == "joined":
        return lambda turns: template.prefix(layout, joined(turns, request))
    # A base model was shown no request: it gets the form that the next stage teaches.
    layout = layout if layout_of(layout).has_prompt else "natural"
    return lambda turns: template.prefix(layout, request, turns=turns)


def joined(turns: Sequence[Turn], request: str) -> str:
    """A conversation as one instruction."""
    return "\n".join([*(part for turn in turns for part in (turn.prompt, turn.answer)), request])


def turns_of(messages: Sequence[tuple[str, str]]) -> tuple[list[Turn], str]:
    """(role, text) messages as the turns before the last request, and that request. Raises UserError if nobody asks.

    A request that was not answered is a turn with an empty answer.
    """
    turns: list[Turn] = []
    last = max((n for n, (role, _) in enumerate(messages) if role == "user"), default=None)
    if last is None:
        raise UserError("found no message of role user, expected the request in one")
    for role, text in messages[:last]:
        if role == "user":
            turns.append(Turn(text, ""))
        elif role == "assistant" and turns:
            turns[-1] = Turn(turns[-1].prompt, "\n".join(filter(None, [turns[-1].answer, text])))
    return turns, messages[last][1]


def _answered(turns: Sequence[Turn], request: str) -> tuple[list[Turn], str]:
    """What was not answered is asked again with what comes next."""
    kept: list[Turn] = []
    waiting: list[str] = []
    for turn in turns:
        waiting.append(turn.prompt)
        if turn.answer:
            kept.append(Turn("\n".join(waiting), turn.answer))
            waiting = []
    return kept, "\n".join([*waiting, request])


def as_request(text: str, layout: str = "natural") -> str:
    """What people type, in the words a model of this layout knows: a cat → Write a story about a cat."""
    if layout_of(layout).again:  # it follows any instruction
        return text.strip()
    if layout == "padded" and (text.rstrip().endswith(END.strip()) or text.startswith("Write a short story (3-5")):
        return rewritten(text)
    request = _as_instruction(text)
    return by_summary(request.removeprefix(ASK)) if layout == "padded" else request


def _as_instruction(text: str) -> str:
    text = " ".join(text.split())
    if re.match(r"write\b", text, re.IGNORECASE):
        return "W" + text[1:]
    text = re.sub(r"^(?:please\s+)?(?:tell me\s+)?(?=an?\s(?:\w+\s)?story\b)", "", text, flags=re.IGNORECASE)
    if re.match(r"an?\s+(?:\w+\s+)?story\b", text, re.IGNORECASE):
        return instruction(text[0].lower() + text[1:])
    return instruction(f"a story about {text}")
