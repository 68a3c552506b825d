"""The one place that turns prompts and stories into ids: for training, sampling, reinforcement, serving and export.

In:   a layout's name, an instruction and what it is about, a story or an answer (text), earlier turns
Out:  ids; always encoded part by part and concatenated, never by encoding joined text: the ids of a prompt are often
      no prefix of the ids of prompt + story
Relies on Tokenizer (its bos and eos are control pieces, which no text can produce), and on lib/text/requests.py for the
words in which a row is asked for.

A layout is one row of LAYOUTS:

    pretrain   [BOS] story [EOS]            stories alone; packed, as all but padded are
    natural    prompt [BOS] story [EOS]     SpaceCowboy850's. An EOS always comes before a prompt; the sampling prefix
                                            starts with that EOS to recreate what the model saw
    padded     prompt [BOS] story [EOS]     cindysridykhan's: a story a row, the loss from BOS on
    alpaca     [BOS] block answer [EOS]     Stanford Alpaca's two blocks, which end in a newline; further turns follow
                                            the EOS as blocks of their own. The loss is on answers
    few-shot   [BOS] examples block         for any model that goes on with text; titles end an answer. Never trained on
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lib.errors import UserError
from lib.text.blocks import ALPACA, ALPACA_AGAIN, EXAMPLES, SAYS, text_of, texts_of
from lib.text.blocks import Block as Block
from lib.text.requests import ASK as ASK
from lib.text.requests import WORDING
from lib.text.requests import instruction as instruction
from lib.text.tokenizer import Tokenizer

BOS, EOS, PROMPT, STORY = "<bos>", "<eos>", "<prompt>", "<story>"
FEW_SHOT = "few-shot"


@dataclass(frozen=True)
class Layout:
    """How one kind of training sequence is put together. Each part is BOS, EOS, PROMPT or STORY."""

    training: tuple[str, ...]
    sampling: tuple[str, ...]  # what the model is given to go on from
    stop: tuple[str, ...] = (BOS, EOS)  # a story ends at its EOS; a BOS means the model began another
    block: Block = Block()
    again: Block | None = None  # a further turn's prompt; None: a sequence holds one
    stop_strings: tuple[str, ...] = ()
    loss_on: Literal["all", "story"] = "all"  # what its authors score
    packed: bool = True  # False: a story a row

    @property
    def has_prompt(self) -> bool:
        return PROMPT in self.training

    @property
    def split(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The parts before the prompt, and those behind it; all of them behind it where there is none."""
        at = self.training.index(PROMPT) if self.has_prompt else -1
        return self.training[: max(at, 0)], self.training[at + 1 :]

    @property
    def form(self) -> dict[str, object]:
        """What decides over ids: another form is another layout. What is scored, and how rows are filled, is not."""
        kept = ("training", "sampling", "stop", "block", "again", "stop_strings")
        return {name: value for name, value in asdict(self).items() if name in kept}


LAYOUTS = {
    "pretrain": Layout(training=(BOS, STORY, EOS), sampling=(BOS, PROMPT)),
    "natural": Layout(training=(PROMPT, BOS, STORY, EOS), sampling=(EOS, PROMPT, BOS)),
    "padded": Layout(training=(PROMPT, BOS, STORY, EOS), sampling=(PROMPT, BOS), loss_on="story", packed=False),
    "alpaca": Layout(
        training=(BOS, PROMPT, STORY, EOS),
        sampling=(BOS, PROMPT),
        block=ALPACA,
        again=ALPACA_AGAIN,
        loss_on="story",
    ),
}
SAMPLED = LAYOUTS | {
    FEW_SHOT: Layout(
        training=(),
        sampling=(BOS, PROMPT),
        block=Block(EXAMPLES + SAYS, EXAMPLES + SAYS),
        again=Block(f"\n{SAYS}", f"\n{SAYS}"),
        stop_strings=("\nHuman:", "\nAI:", "Human:", "AI:"),
    )
}
# Models that were made when one digest spoke for all layouts there were.
EARLIER = {"pretrain": "917bf20097a3", "natural": "917bf20097a3"}


@dataclass(frozen=True)
class Turn:
    """What was asked, and what was answered."""

    prompt: str
    answer: str
    input: str = ""


def layout_of(name: str) -> Layout:
    if name not in SAMPLED:
        raise UserError(f"found layout {name!r}, expected one of {', '.join(LAYOUTS)}")
    return SAMPLED[name]


def digest_of(layout: str) -> str:
    """12 hex digits over one layout's form and words: another digest means that a model was trained on another form.

    One a layout, so that a new one does not rename what was made in the others.
    """
    words = WORDING.get(layout, ASK if layout_of(layout).has_prompt else None)
    form = {"words": words, **layout_of(layout).form}
    return hashlib.sha256(json.dumps(form, sort_keys=True).encode()).hexdigest()[:12]


def same_form(layout: str, digest: str) -> bool:
    """Whether what was made with `digest` has the layout's form of today."""
    return digest in (digest_of(layout), EARLIER.get(layout))


class Template:
    """Prompts and stories as ids, with one tokenizer."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self._controls = {BOS: [tokenizer.bos_id], EOS: [tokenizer.eos_id]}

    def training(
        self, layout: str, prompt: str, story: str, input: str = "", turns: Sequence[Turn] = ()
    ) -> tuple[list[int], int]:
        """The ids of one training sequence, and how many of them belong to the prompt (those the loss may leave out).

        Everything up to the own prompt belongs to it. A BOS after it is not counted: it is the model's first own token.
        """
        shape = layout_of(layout)
        if not shape.has_prompt:
            return [i for part in shape.training for i in self._ids(part, story)], 0
        ids = self._begun(shape, turns) + self._prompt(shape, prompt, input, first=not turns)
        return ids + [i for part in shape.split[1] for i in self._ids(part, story)], len(ids)

    def prefix(self, layout: str, prompt: str, input: str = "", turns: Sequence[Turn] = ()) -> list[int]:
        """What the model is given before it writes: for `natural` [EOS] prompt [BOS], for `pretrain` [BOS] text.

        `turns`, oldest first, go before the prompt. Raises UserError where the layout holds one prompt.
        """
        shape = layout_of(layout)
        if layout == FEW_SHOT:  # text to go on with: titles and answers are spelled as one
            return self.completion_prefix(_talk(shape, prompt, turns))
        if not shape.has_prompt:
            prompt = prompt.rstrip(" ")  # a blank belongs to the word after it; training never showed it alone
        own = self._prompt(shape, prompt, input, first=not turns)
        if turns:
            return self._begun(shape, turns) + own
        return [i for part in shape.sampling for i in (own if part == PROMPT else self._controls[part])]

    def completion_prefix(self, text: str) -> list[int]:
        """The ids from which any model goes on writing `text`: [BOS] text, blanks at its end left out."""
        return self.prefix("pretrain", text)

    def stop_ids(self, layout: str) -> set[int]:
        """The ids that end a story while sampling."""
        return {self._controls[part][0] for part in layout_of(layout).stop}

    def cut(self, layout: str, ids: Sequence[int]) -> list[int]:
        """Of the ids that came after a prefix, those before the first stop id: the story."""
        stops = self.stop_ids(layout)
        return list(ids[: next((n for n, i in enumerate(ids) if i in stops), len(ids))])

    def training_columns(
        self,
        layout: str,
        instructions: pa.Array | pa.ChunkedArray,
        stories: pa.Array | pa.ChunkedArray,
        inputs: pa.Array | pa.ChunkedArray | None = None,
        conversations: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`training` for whole columns: flat ids, n + 1 offsets, and the prompt lengths of the n rows.

        A layout without a prompt does not read the instructions. `conversations`, (n, turns): the row that stands at
        each place of the row's conversation, itself the last, and -1 behind it; not given, every row is its own.
        """
        shape, width = layout_of(layout), self.tokenizer.dtype.itemsize
        lead, rest = ([self._column(part, stories) for part in parts if part != PROMPT] for parts in shape.split)
        prompts = [self._encoded(texts_of(shape.block, instructions, inputs))] if shape.has_prompt else []
        rows = _concatenated([*lead, *prompts, *rest])
        num_after = sum(pc.binary_length(part).to_numpy() for part in rest) // width
        if conversations is not None:
            prompts = self._encoded(texts_of(_again(shape), instructions, inputs))
            rows = _in_turns(conversations, rows, _concatenated([prompts, *rest]))
        _, ends, data = rows.buffers()
        offsets = np.frombuffer(ends, np.int64, len(rows) + 1) // width
        ids = np.frombuffer(data, self.tokenizer.dtype, offsets[-1]) if data else np.empty(0, self.tokenizer.dtype)
        prompt_lengths = np.diff(offsets) - num_after if shape.has_prompt else np.zeros(len(stories), np.int64)
        return ids, offsets, prompt_lengths

    def _begun(self, shape: Layout, turns: Sequence[Turn]) -> list[int]:
        """The ids before the last turn's prompt."""
        before, after = shape.split
        ids = [i for part in before for i in self._controls[part]]
        for n, turn in enumerate(turns):
            ids += self._prompt(shape, turn.prompt, turn.input, first=n == 0)
            ids += [i for part in after for i in self._ids(part, turn.answer)]
        return ids

    def _prompt(self, shape: Layout, prompt: str, input: str, *, first: bool) -> list[int]:
        """The ids of a prompt: one text, however many pieces it is made of."""
        return self.tokenizer.encode(text_of(shape.block if first else _again(shape), prompt, input))

    def _ids(self, part: str, story: str) -> list[int]:
        return self.tokenizer.encode(story) if part == STORY else self._controls[part]

    def _column(self, part: str, stories: pa.Array | pa.ChunkedArray) -> pa.Array:
        """`_ids` of every row."""
        if part == STORY:
            return self._encoded(stories)
        same = np.array(self._controls[part], self.tokenizer.dtype).tobytes()
        return pa.repeat(pa.scalar(same, pa.large_binary()), len(stories))

    def _encoded(self, texts: pa.Array | pa.ChunkedArray) -> pa.Array:
        """The ids of every row, as bytes: Arrow then joins a row's in one pass."""
        ids, offsets = self.tokenizer.encode_column(texts)
        buffers = [None, pa.py_buffer(offsets * ids.itemsize), pa.py_buffer(ids)]
        return pa.Array.from_buffers(pa.large_binary(), len(offsets) - 1, buffers)


def _again(shape: Layout) -> Block:
    """The block of a further turn."""
    if shape.again is None:
        raise UserError("found earlier turns, but a sequence of this layout holds one request: use layout alpaca")
    return shape.again


def _talk(shape: Layout, prompt: str, turns: Sequence[Turn]) -> str:
    """A few-shot conversation as text. An answer is one paragraph there: an empty line would end the example."""
    asked = [*(turn.prompt for turn in turns), prompt]
    answers = [f" {' '.join(turn.answer.split())}" for turn in turns] + [""]
    blocks = [shape.block] + [_again(shape)] * len(turns)
    return "".join(text_of(block, one, "") + said for block, one, said in zip(blocks, asked, answers, strict=True))


def _concatenated(parts: list[pa.Array]) -> pa.Array:
    return pc.binary_join_element_wise(*parts, pa.scalar(b"", pa.large_binary()))


def _in_turns(conversations: np.ndarray, first: pa.Array, further: pa.Array) -> pa.Array:
    """Each row behind the turns before it: `first` of the row that begins its conversation, `further` of the others."""
    missing = conversations < 0
    turns = [pa.array(rows, mask=mask) for rows, mask in zip(conversations.T, missing.T, strict=True)]
    spans = [first.take(turns[0]), *(pc.fill_null(further.take(rows), b"") for rows in turns[1:])]
    return _concatenated(spans)
