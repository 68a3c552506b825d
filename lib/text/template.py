"""The one place that turns prompts and stories into ids: for training, sampling, reinforcement, serving and export.

In:   a layout's name, a prompt, a story (text)
Out:  ids; always encoded part by part and concatenated, never by encoding joined text: the ids of a prompt are often
      no prefix of the ids of prompt + story
Relies on Tokenizer (its bos and eos are control pieces, which no text can produce).

A layout is one row of LAYOUTS. Stories are packed: sequence follows sequence, and an EOS always comes before a prompt;
the sampling prefix of `natural` starts with that EOS to recreate what the model saw.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lib.errors import UserError
from lib.text.tokenizer import Tokenizer

BOS, EOS, PROMPT, STORY = "<bos>", "<eos>", "<prompt>", "<story>"
ASK = "Write "  # + "a story about a cat who could not sleep"


@dataclass(frozen=True)
class Layout:
    """How one kind of training sequence is put together. Each part is BOS, EOS, PROMPT, STORY, or literal text."""

    training: tuple[str, ...]
    sampling: tuple[str, ...]  # what the model is given to go on from
    stop: tuple[str, ...] = (BOS, EOS)  # a story ends at its EOS; a BOS means the model began another

    @property
    def has_prompt(self) -> bool:
        return PROMPT in self.training


LAYOUTS = {
    "pretrain": Layout(training=(BOS, STORY, EOS), sampling=(BOS, PROMPT)),
    "natural": Layout(training=(PROMPT, BOS, STORY, EOS), sampling=(EOS, PROMPT, BOS)),
}


def instruction(summary: str) -> str:
    """The request a summary stands for: "a story about a cat" -> "Write a story about a cat"."""
    return ASK + summary.strip()


def layout_of(name: str) -> Layout:
    if name not in LAYOUTS:
        raise UserError(f"found layout {name!r}, expected one of {', '.join(LAYOUTS)}")
    return LAYOUTS[name]


class Template:
    """Prompts and stories as ids, with one tokenizer."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self._controls = {BOS: [tokenizer.bos_id], EOS: [tokenizer.eos_id]}

    @property
    def digest(self) -> str:
        """12 hex digits over every layout: another digest means that a model was trained on another form."""
        table = {"ask": ASK, "layouts": {name: asdict(layout) for name, layout in LAYOUTS.items()}}
        return hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()[:12]

    def training(self, layout: str, prompt: str, story: str) -> tuple[list[int], int]:
        """The ids of one training sequence, and how many of them belong to the prompt (those the loss may leave out).

        The BOS after a prompt is not counted: it is the model's first own token.
        """
        parts = layout_of(layout).training
        spans = [self._ids(part, prompt, story) for part in parts]
        return [i for span in spans for i in span], sum(map(len, spans[: _num_prompt_parts(parts)]))

    def prefix(self, layout: str, prompt: str) -> list[int]:
        """What the model is given before it writes: for `natural` [EOS] prompt [BOS], for `pretrain` [BOS] text."""
        if not layout_of(layout).has_prompt:
            prompt = prompt.rstrip(" ")  # a blank belongs to the word after it; training never showed it alone
        return [i for part in layout_of(layout).sampling for i in self._ids(part, prompt, "")]

    def completion_prefix(self, text: str) -> list[int]:
        """The ids from which any model goes on writing `text`: [BOS] text, blanks at its end left out."""
        return self.prefix("pretrain", text)

    def stop_ids(self, layout: str) -> set[int]:
        """The ids that end a story while sampling."""
        return {self._controls[part][0] for part in layout_of(layout).stop}

    def cut(self, layout: str, ids: Sequence[int]) -> list[int]:
        """The story's own ids: from after the prefix, where `ids` still start with one, up to the first stop id."""
        story = list(ids)
        start = self._controls.get(layout_of(layout).sampling[0], [None])[0]
        if story and story[0] == start:
            bos = self.tokenizer.bos_id
            story = story[story.index(bos) + 1 :] if bos in story else []
        stops = self.stop_ids(layout)
        return story[: next((n for n, i in enumerate(story) if i in stops), len(story))]

    def training_columns(
        self, layout: str, summaries: pa.Array | pa.ChunkedArray, stories: pa.Array | pa.ChunkedArray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`training` for whole columns: flat ids, n + 1 offsets, and the prompt lengths of the n rows.

        The prompt of a row is `instruction` of its summary; a layout without a prompt does not read the summaries.
        """
        parts, width = layout_of(layout).training, self.tokenizer.dtype.itemsize
        spans = [self._spans(part, summaries, stories) for part in parts]  # bytes: Arrow joins a row's in one pass
        rows = pc.binary_join_element_wise(*spans, pa.scalar(b"", pa.large_binary()))
        _, ends, data = rows.buffers()
        offsets = np.frombuffer(ends, np.int64, len(rows) + 1) // width
        ids = np.frombuffer(data, self.tokenizer.dtype, offsets[-1]) if data else np.empty(0, self.tokenizer.dtype)
        prompt_lengths = np.zeros(len(stories), np.int64)
        for span in spans[: _num_prompt_parts(parts)]:
            prompt_lengths += pc.binary_length(span).to_numpy() // width
        return ids, offsets, prompt_lengths

    def _ids(self, part: str, prompt: str, story: str) -> list[int]:
        if part in self._controls:
            return self._controls[part]
        return self.tokenizer.encode({PROMPT: prompt, STORY: story}.get(part, part))

    def _spans(self, part: str, summaries, stories) -> pa.Array:
        """The ids of one part of every row, as bytes."""
        if part not in (STORY, PROMPT):
            same = np.array(self._ids(part, "", ""), self.tokenizer.dtype).tobytes()
            return pa.repeat(pa.scalar(same, pa.large_binary()), len(stories))
        ids, offsets = self.tokenizer.encode_column(stories if part == STORY else _instructions(summaries))
        buffers = [None, pa.py_buffer(offsets * ids.itemsize), pa.py_buffer(ids)]
        return pa.Array.from_buffers(pa.large_binary(), len(offsets) - 1, buffers)


def _num_prompt_parts(parts: tuple[str, ...]) -> int:
    """How many parts, from the left, end with the prompt; 0 where a layout has none."""
    return parts.index(PROMPT) + 1 if PROMPT in parts else 0


def _instructions(summaries: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """`instruction` of a column."""
    return pc.binary_join_element_wise(ASK, pc.utf8_trim_whitespace(summaries), "")
