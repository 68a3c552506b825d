"""Engine: one model that tells stories as text, piece by piece.

In:   a model dataset (pretrain, instruct, align) or a folder like one; a request or an opening; how to sample
Out:  text, as soon as it is certain; the ids before it as a readable prompt; how the story ended
Relies on lib/text/template.py for every id, and on lib/model/sampling.py for every draw. Imports torch: readers that
need no model must not import this module.
"""

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from lib.errors import UserError
from lib.model.draw import Draw
from lib.model.inputs import require_form
from lib.model.network import load_model
from lib.model.sampling import Sampler
from lib.model.scoring import WIDE
from lib.store import Dataset, newest_of, root
from lib.text.template import FEW_SHOT, Template, Turn
from lib.text.tokenizer import Tokenizer
from lib.web.desk import Desk, Ticket
from lib.web.memory import Given, as_request, given, memory_of
from lib.web.unfolding import Unfolding

# what people call the stages' models
MODELS = {"base": ("pretrain", "adopt"), "instruct": ("instruct",), "aligned": ("align",)}
ROOM = 8  # tokens that must be left for the story


@dataclass(frozen=True)
class Asking:
    """One request. `mode`: `request` ("Write a story about ...") or `opening` (text to go on from).

    `turns` are those before it; `memory`, a mode of lib/web/memory.py, says what of them the model is given.
    """

    text: str
    mode: str = "request"
    max_tokens: int = 400
    temperature: float = 0.8
    top_p: float = 0.95
    seed: int = 0
    stop: tuple[str, ...] = ()
    turns: tuple[Turn, ...] = ()
    memory: str | None = None  # None: the one of the model's layout
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    number: int = 0  # of several answers to the same request under the same seed


@dataclass
class Telling:
    """A story on its way: iterate once for its text, in a thread or in an event loop; the counts grow as it does."""

    prompt: str  # what the model is given, control pieces shown
    prompt_tokens: int
    ticket: Ticket = field(repr=False)
    unfolding: Unfolding = field(repr=False)
    forgotten: int = 0  # earlier turns for which there was no room
    begun: list[int] = field(default_factory=list, repr=False)  # the opening's last id, where its text goes on
    scores: list[tuple[int, float]] = field(default_factory=list, repr=False)  # the ids told, their log-probabilities
    ended: bool = False  # the model, or a stop string, ended it; otherwise the room did

    @property
    def tokens(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[str]:
        """Text that can no longer change: whole characters, and nothing that may be the start of a stop string."""
        with closing(iter(self.ticket)) as drawn:  # type: ignore[type-var]
            for each in drawn:
                if text := self._take(each):
                    yield text
                if self.unfolding.found:
                    break
        if text := self._rest():
            yield text

    async def until(self, deadline: float) -> AsyncIterator[str]:
        """The same in an event loop; at `deadline` (the loop's time) the story is cut off."""
        async with aclosing(self.ticket.until(deadline)) as drawn:  # type: ignore[type-var]
            async for each in drawn:
                if text := self._take(each):
                    yield text
                if self.unfolding.found:
                    break
        if text := self._rest():
            yield text

    def _take(self, drawn: list[tuple[int, float]]) -> str:
        self.scores += drawn
        return self.unfolding.add([piece for piece, _ in drawn])

    def _rest(self) -> str:
        self.ended = self.ticket.row.ended or self.unfolding.found
        return self.unfolding.rest()


class Engine:
    """A loaded model with its tokenizer. For many threads at once: its desk writes their stories together."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.tokenizer = Tokenizer.load(folder / "tokenizer.model")
        self.template = Template(self.tokenizer)
        about = json.loads((folder / "model.json").read_bytes())
        require_form(f"the {name} model", about)
        self.layout = about["layout"]
        model = load_model(folder)
        self.max_length = model.shape.max_length
        self.num_params = model.shape.num_params
        self.sampler = Sampler(model)
        self.desk = Desk(self.sampler)
        if model.shape.d_model < WIDE:
            torch.set_num_threads(1)  # one token of a small model is too little to share (see WIDE)

    @classmethod
    def of(cls, name: str, dataset: Dataset) -> "Engine":
        """The engine of a finished dataset, its files verified first."""
        for file in ("model.json", "model.safetensors", "tokenizer.model"):
            dataset.file(file)
        return cls(name, dataset.path)

    def given(self, asking: Asking) -> Given:
        """What the model goes on from. Raises UserError if it leaves no room for a story."""
        if asking.mode == "opening":
            found = Given(self.template.completion_prefix(asking.text))
        else:
            memory = memory_of(asking.memory, self.layout)
            request = asking.text.strip() if memory.mode == FEW_SHOT else as_request(asking.text, self.layout)
            how = {"max_length": self.max_length}
            found = given(self.template, self.layout, memory, asking.turns, request, **how)
        if len(found.ids) > self.max_length - ROOM:
            raise UserError(
                f"the prompt has {len(found.ids)} tokens, and this model's rows {self.max_length}; "
                f"ask in at most {self.max_length - ROOM} tokens"
            )
        return found

    def prefix(self, asking: Asking) -> list[int]:
        """The ids of `given`."""
        return self.given(asking).ids

    def tell(self, asking: Asking) -> Telling:
        """Start a story. Nothing is computed before the first piece is asked for."""
        found, decode = self.given(asking), self.tokenizer.decode
        stops = asking.stop + found.stops
        row = self.sampler.row(
            found.ids,
            max_new=asking.max_tokens,
            seed=np.random.SeedSequence([asking.seed, asking.number, *found.ids]),
            how=Draw(asking.temperature, asking.top_p, asking.top_k, asking.min_p, asking.repetition_penalty),
            stop_ids=frozenset(self.template.stop_ids(self.layout)),
            stop_strings=stops,
            decode=decode,
        )
        # An opening is decoded together with its story: alone, the story would lose the blank it starts with.
        unfolding = Unfolding(decode, found.ids if asking.mode == "opening" else (), stops)
        ticket = Ticket(self.desk, row)
        begun = found.ids[-1:] if asking.mode == "opening" else []
        return Telling(self.shown(found.ids), len(found.ids), ticket, unfolding, found.forgotten, begun)

    def shown(self, ids: Sequence[int]) -> str:
        """Ids as text with `<s>` and `</s>` where the control pieces stand."""
        marks = {self.tokenizer.bos_id: "<s>", self.tokenizer.eos_id: "</s>"}
        text, run = "", []
        for token in ids:
            if token in marks:
                text, run = text + self.tokenizer.decode(run) + marks[token], []
            else:
                run.append(token)
        return text + self.tokenizer.decode(run)


def engine_of(name: str) -> Engine:
    """The newest model that people call `name`; UserError if it has not been trained here."""
    if name not in MODELS:
        raise UserError(f"found no model {name!r}, expected one of {', '.join(MODELS)}")
    dataset = newest_of(MODELS[name])
    if dataset is None:
        raise UserError(f"found no {name} model under {root()}; make it first: storymill run")
    return Engine.of(name, dataset)


def finished_engines() -> dict[str, Engine]:
    """Every model that has been trained here, the newest of its stage; UserError if there is none."""
    engines = {name: engine_of(name) for name, stages in MODELS.items() if newest_of(stages)}
    if not engines:
        raise UserError(f"found no trained model under {root()}; make one first: storymill run")
    return engines
