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
from collections.abc import Iterable, Sequence
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
        parts, num_rows = layout_of(layout).training, len(stories)
        spans = [self._columns(part, summaries, stories, num_rows) for part in parts]
        lengths = [np.diff(offsets) for _, offsets in spans]
        offsets = np.concatenate([[0], np.cumsum(np.sum(lengths, axis=0))]).astype(np.int64)
        ids, place = np.empty(offsets[-1], self.tokenizer.dtype), offsets[:-1].copy()
        for (span_ids, span_offsets), length in zip(spans, lengths, strict=True):
            ids[np.repeat(place - span_offsets[:-1], length) + np.arange(len(span_ids))] = span_ids
            place += length
        prompt_lengths = sum(lengths[: _num_prompt_parts(parts)], start=np.zeros(num_rows, np.int64))
        return ids, offsets, prompt_lengths

    def _ids(self, part: str, prompt: str, story: str) -> list[int]:
        if part in self._controls:
            return self._controls[part]
        return self.tokenizer.encode({PROMPT: prompt, STORY: story}.get(part, part))

    def _columns(self, part: str, summaries, stories, num_rows: int) -> tuple[np.ndarray, np.ndarray]:
        if part == STORY:
            return self.tokenizer.encode_column(stories)
        if part == PROMPT:
            return self.tokenizer.encode_column(_instructions(summaries))
        same: Iterable[int] = self._ids(part, "", "")
        ids = np.array(list(same), self.tokenizer.dtype)
        return np.tile(ids, num_rows), np.arange(num_rows + 1, dtype=np.int64) * len(ids)


def _num_prompt_parts(parts: tuple[str, ...]) -> int:
    """How many parts, from the left, end with the prompt; 0 where a layout has none."""
    return parts.index(PROMPT) + 1 if PROMPT in parts else 0


def _instructions(summaries: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """`instruction` of a column."""
    return pc.binary_join_element_wise(ASK, pc.utf8_trim_whitespace(summaries), "")
