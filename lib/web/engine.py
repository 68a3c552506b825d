"""Engine: one model that tells stories as text, piece by piece.

In:   a model dataset (pretrain, instruct, align) or a folder like one; a request or an opening; how to sample
Out:  text, as soon as it is certain; the ids before it as a readable prompt; how the story ended
Relies on lib/text/template.py for every id, and on lib/model/sampling.py for every draw. Imports torch: readers that
need no model must not import this module.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from lib.errors import UserError
from lib.model.inputs import require_form
from lib.model.network import load_model
from lib.model.sampling import Sampler
from lib.model.scoring import WIDE
from lib.store import Dataset, newest_of, root
from lib.text.template import FEW_SHOT, Template, Turn
from lib.text.tokenizer import Tokenizer
from lib.web.memory import Given, as_request, given, memory_of

# what people call the stages' models
MODELS = {"base": ("pretrain", "adopt"), "instruct": ("instruct",), "aligned": ("align",)}
REPLACEMENT = "\ufffd"  # what bytes decode to while their character is not whole yet
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


@dataclass
class Telling:
    """A story on its way: iterate for its text; the counts grow as it does."""

    prompt: str  # what the model is given, control pieces shown
    prompt_tokens: int
    pieces: Iterator[str] = field(repr=False)
    tokens: int = 0
    ended: bool = False  # the model, or a stop string, ended it; otherwise the room did
    forgotten: int = 0  # earlier turns for which there was no room

    def __iter__(self) -> Iterator[str]:
        return self.pieces


class Engine:
    """A loaded model with its tokenizer. Not for two threads at once: the caller takes turns."""

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
        found = self.given(asking)
        asking = replace(asking, stop=asking.stop + found.stops)
        telling = Telling(self.shown(found.ids), len(found.ids), iter(()), forgotten=found.forgotten)
        telling.pieces = self._pieces(asking, found.ids, telling)
        return telling

    def _pieces(self, asking: Asking, prefix: list[int], telling: Telling) -> Iterator[str]:
        """Text that can no longer change: whole characters, and nothing that may be the start of a stop string."""
        begun = self.tokenizer.decode(prefix) if asking.mode == "opening" else ""
        story, told = list(prefix) if begun else [], len(begun)
        for token in self._tokens(asking, prefix, telling):
            story.append(token)
            text = self.tokenizer.decode(story)
            end, found = stop_at(text, asking.stop, told)
            if text.endswith(REPLACEMENT) and not found:
                continue
            if end > told:
                yield text[told:end]
                told = end
            if found:
                telling.ended = True
                return
        text = self.tokenizer.decode(story)
        if len(text) > told:
            yield text[told:]

    def _tokens(self, asking: Asking, prefix: list[int], telling: Telling) -> Iterator[int]:
        """The story's ids. The sampler keeps a stop id to itself: fewer ids than there was room for means one came."""
        room = min(asking.max_tokens, self.max_length - len(prefix))
        for token in self.sampler.stream(
            prefix,
            max_new=room,
            temperature=asking.temperature,
            top_p=asking.top_p,
            stop_ids=self.template.stop_ids(self.layout),
            seed=asking.seed,
        ):
            telling.tokens += 1
            yield token
        telling.ended = telling.tokens < room

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


def stop_at(text: str, stops: Sequence[str], start: int) -> tuple[int, bool]:
    """How far `text` is certain from `start` on, and whether a stop string was found there (it is left out).

    The end is held back while it may be the beginning of a stop string.
    """
    hits = [at for stop in stops if (at := text.find(stop, start)) >= 0]
    if hits:
        return min(hits), True
    held = max((n for stop in stops for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0)
    return max(start, len(text) - held), False


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
