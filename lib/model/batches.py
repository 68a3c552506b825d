"""Batches: whole stories packed into rows, as a pure function of (seed, step).

In:   a `tokens` dataset: flat shards of ids, memory-mapped, and its index, one row a story
Out:  Batch: ids_BT, document_BT, targets_BT

There is no loader state. Epoch e visits every story once, in an order drawn from (seed, e) by Philox; rows follow one
another across epochs, and step s takes rows s·B … s·B+B-1. Which stories a step saw is recomputed by `stories_of`.

A story of n tokens fills n-1 positions (its last token is only a target), and those of `lead`, which goes before it.
Rows are packed (lib/model/packing.py) within windows of the epoch's order, which keep memory and sorting flat as data
grow; then the rows of the epoch are shuffled. Where stories stand alone and all of them is scored, some are
broken into pieces so that less than 2 % of positions are empty, and every token is seen once an epoch. Where a story
answers a request it stays whole, and one longer than `longest` is left out and counted: cut, it would have no EOS, and
teach not to stop. Where stories are measured it is cut. Rows may be longer than `longest`, and are fuller then.

Letters of shapes: B rows, T positions.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from lib.errors import UserError
from lib.model.network import IGNORE
from lib.model.packing import pack
from lib.store import Dataset

WINDOW = 4096  # stories; 1,024 fills rows 0.5 % less, all at once 0.1 % more (9,446 real stories, T = 384)
PAD_DOCUMENT = -1
BOS = 1  # of a SentencePiece model as we train it; a public tokenizer may have another
AHEAD = 2  # batches that each worker holds ready
LossOn = Literal["all", "story", "evaluation"]


@dataclass(frozen=True)
class Batch:
    ids_BT: Tensor
    document_BT: Tensor  # number of the story within its row; PAD_DOCUMENT behind the last
    targets_BT: Tensor  # the next token of the same story, or IGNORE
    text_bytes: float  # of the stories in it; of a story that is cut, in proportion to its scored tokens

    @property
    def num_targets(self) -> int:
        return int((self.targets_BT != IGNORE).sum())

    def to(self, device: torch.device) -> "Batch":
        """On a GPU the copy runs beside what is computed, if the batch is `pinned`."""
        columns = (each.to(device, non_blocking=True) for each in (self.ids_BT, self.document_BT, self.targets_BT))
        return Batch(*columns, self.text_bytes)

    def pinned(self) -> "Batch":
        columns = (each.pin_memory() for each in (self.ids_BT, self.document_BT, self.targets_BT))
        return Batch(*columns, self.text_bytes)


class Corpus:
    """The stories of one split: memory-mapped ids and where each story lies.

    `most` takes the first by story_id. Those are a hash: the same stories are taken from any layout of the same split.
    """

    def __init__(self, *, tokens: Dataset, split: str, most: int | None = None) -> None:
        index = tokens.table(["story_id", "split", "shard", "offset", "length", "prompt_length", "text_bytes"])
        index = index.filter(pc.equal(index["split"], split))
        if most is not None:
            index = index.sort_by("story_id").slice(0, most)
        if not index.num_rows:
            raise UserError(f"{tokens.path} holds no story of split {split!r}; expected at least one: look at split")
        self.shard, self.offset, self.length, self.prompt_length, self.text_bytes = (
            index[name].to_numpy() for name in ("shard", "offset", "length", "prompt_length", "text_bytes")
        )
        self.story_ids: pa.StringArray = index["story_id"].combine_chunks()
        names = {int(shard): f"tokens-{shard:05d}.bin" for shard in np.unique(self.shard)}
        dtype = np.dtype(tokens.facts["dtype"])
        self.shards = {shard: np.memmap(tokens.file(name), dtype=dtype, mode="r") for shard, name in names.items()}

    def __len__(self) -> int:
        return len(self.length)

    def ids(self, story: int) -> np.ndarray:
        start = self.offset[story]
        return self.shards[int(self.shard[story])][start : start + self.length[story]]


@dataclass(frozen=True)
class Plan:
    """Row r holds the pieces bounds[r] … bounds[r + 1] - 1."""

    pieces: np.ndarray  # (pieces, 3): story, start, size
    bounds: np.ndarray

    @property
    def num_rows(self) -> int:
        return len(self.bounds) - 1

    def row(self, number: int) -> np.ndarray:
        return self.pieces[self.bounds[number] : self.bounds[number + 1]]


class Batches:
    """Every batch of a run over one corpus, by step."""

    def __init__(
        self,
        *,
        corpus: Corpus,
        row_length: int,
        batch_size: int,
        longest: int | None = None,
        seed: int = 0,
        loss_on: LossOn = "all",
        lead: Sequence[int] = (),
        bos_id: int = BOS,
        packed: bool = True,
    ) -> None:
        self.bos_id, self.packed = bos_id, packed
        self.corpus, self.row_length, self.batch_size, self.seed = corpus, row_length, batch_size, seed
        self.loss_on, self.lead = loss_on, list(lead)
        self.longest = longest or row_length  # positions of a story that stays whole
        wanted = corpus.length + len(self.lead) - 1
        self.whole = not packed or loss_on != "all" or bool(corpus.prompt_length.any())
        self.sizes = np.minimum(wanted, self.longest) if self.whole else wanted  # positions each story fills
        self.fits = (wanted == self.sizes) | (loss_on == "evaluation")
        if not self.fits.any():
            raise UserError(
                f"none of {len(wanted):,} sequences fits whole into {self.longest} positions, which is the model's "
                f"max_length (the shortest fills {wanted.min()}); pretrain with a larger max_length"
            )
        self._planning = threading.Lock()
        self._rows_before = [0]  # of epoch e, counted over all epochs before it
        self.plan = lru_cache(maxsize=2)(self._plan)  # two: a batch may reach across an epoch's end

    def _plan(self, epoch: int) -> Plan:
        """Who shares a row in this epoch. 10,000 stories take about 40 ms, each further one 4 µs."""
        random = np.random.Generator(np.random.Philox(key=[self.seed, epoch]))
        order = random.permutation(len(self.corpus))
        order = order[self.fits[order]]
        settings = {"sizes": self.sizes, "capacity": self.row_length, "whole": self.whole}
        pieces, lengths = [], []
        for start in range(0, len(order), WINDOW):
            window = order[start : start + WINDOW]
            rows = pack(window, **settings) if self.packed else [[(story, 0, self.sizes[story])] for story in window]
            pieces.append(np.array([piece for row in rows for piece in row], np.int64))
            lengths.append(np.array([len(row) for row in rows]))
        return _shuffled(np.concatenate(pieces), np.concatenate(lengths), random.permutation(sum(map(len, lengths))))

    @property
    def too_long(self) -> pa.Table:
        """The stories that are left out, as rows of `_dropped`."""
        gone = np.flatnonzero(~self.fits)
        said = [f"{n} positions, more than {self.longest}" for n in self.corpus.length[gone] + len(self.lead) - 1]
        columns = {"reason": ["too_long"] * len(gone), "detail": said}
        told = {name: pa.array(each, pa.string()) for name, each in columns.items()}
        return pa.table({"story_id": self.corpus.story_ids.take(pa.array(gone))} | told)

    @property
    def fill(self) -> float:
        """Share of positions that hold a story's token, in the first epoch."""
        return float(self.sizes[self.fits].sum() / (self.plan(0).num_rows * self.row_length))

    def pieces_of(self, step: int) -> list[np.ndarray]:
        """(story, start, size) of each document in each row of this step; stories as positions in the corpus."""
        return [self._row(row) for row in range(step * self.batch_size, (step + 1) * self.batch_size)]

    def stories_of(self, step: int) -> list[np.ndarray]:
        """The stories in each row of this step, each once, as positions in the corpus."""
        return [np.array(list(dict.fromkeys(row[:, 0].tolist())), np.int64) for row in self.pieces_of(step)]

    def _row(self, row: int) -> np.ndarray:
        """Row `row`, counted from the start of the run."""
        with self._planning:  # threads that prepare batches ahead come here at once
            while self._rows_before[-1] <= row:
                self._rows_before.append(self._rows_before[-1] + self.plan(len(self._rows_before) - 1).num_rows)
        epoch = int(np.searchsorted(self._rows_before, row, side="right")) - 1
        return self.plan(epoch).row(row - self._rows_before[epoch])

    def batch(self, step: int) -> Batch:
        return self._filled(self.pieces_of(step))

    def in_order(self) -> list[Batch]:
        """The first epoch once, in batches of one shape; the last one ends in empty rows. For evaluation."""
        rows = [self.plan(0).row(row) for row in range(self.plan(0).num_rows)]
        rows += [np.empty((0, 3), np.int64)] * (-len(rows) % self.batch_size)
        return [self._filled(rows[start : start + self.batch_size]) for start in range(0, len(rows), self.batch_size)]

    def _filled(self, rows: list[np.ndarray]) -> Batch:
        ids_BT = np.zeros((len(rows), self.row_length), np.int64)
        document_BT = np.full(ids_BT.shape, PAD_DOCUMENT, np.int32)
        targets_BT = np.full(ids_BT.shape, IGNORE, np.int64)
        text_bytes = 0.0
        for b, row in enumerate(rows):
            place = 0
            for document, (story, start, size) in enumerate(row.tolist()):
                here, piece = slice(place, place + size), slice(start, start + size)
                ids = np.concatenate([self.lead, self.corpus.ids(story)]).astype(np.int64)
                targets = self._targets(story, ids)
                ids_BT[b, here], document_BT[b, here], targets_BT[b, here] = ids[piece], document, targets[piece]
                share = (targets[piece] != IGNORE).sum() / max((targets != IGNORE).sum(), 1)
                text_bytes += float(self.corpus.text_bytes[story] * share)
                place += size
        return Batch(*map(torch.from_numpy, (ids_BT, document_BT, targets_BT)), text_bytes)

    def _targets(self, story: int, ids: np.ndarray) -> np.ndarray:
        """What follows each token, IGNORE where it is not scored.

        all         every token but the first
        story       the prompt is not scored; the BOS behind it, the first token that the model itself writes, is
        evaluation  story tokens and EOS alone, so that layouts compare: no prompt and no BOS
        """
        targets = ids[1:].copy()
        if self.loss_on == "all":
            return targets
        prompt = int(self.corpus.prompt_length[story]) + len(self.lead)
        targets[: max(prompt - 1, 0)] = IGNORE
        if self.loss_on == "evaluation" and prompt and ids[prompt] == self.bos_id:
            targets[prompt - 1] = IGNORE  # by its place: where bos and eos are one id, EOS is scored
        return targets


def _shuffled(pieces: np.ndarray, lengths: np.ndarray, order: np.ndarray) -> Plan:
    """The rows, of `lengths` pieces each, in another order."""
    starts, lengths = (np.cumsum(lengths) - lengths)[order], lengths[order]
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    return Plan(pieces=pieces[np.arange(bounds[-1]) + np.repeat(starts - bounds[:-1], lengths)], bounds=bounds)


def pieces(batch: Batch, number: int) -> Iterator[Batch]:
    """The batch in `number` pieces of equal shape, for gradients that are added up."""
    assert len(batch.ids_BT) % number == 0, f"{len(batch.ids_BT)} rows in {number} pieces"
    columns = (batch.ids_BT, batch.document_BT, batch.targets_BT)
    for ids, document, targets in zip(*(column.chunk(number) for column in columns), strict=True):
        yield Batch(ids, document, targets, batch.text_bytes / number)


def pinned(make: Callable[[int], Batch]) -> Callable[[int], Batch]:
    """`make`, into memory from which a GPU copies by itself; the worker that prepares the batch pins it."""
    return lambda step: make(step).pinned()


def ahead(make: Callable[[int], Batch], steps: Iterable[int], workers: int) -> Iterator[Batch]:
    """`make(step)` for each step, in order, prepared by `workers` threads while earlier ones are used; 0: when needed.

    A batch is a pure function of its step, so any number of workers gives the same ones. What `make` raises is raised
    here, at its step.
    """
    if not workers:
        yield from map(make, steps)
        return
    pool, ready, steps = ThreadPoolExecutor(workers, "batches"), deque[Future[Batch]](), iter(steps)
    try:
        ready.extend(pool.submit(make, step) for step in islice(steps, AHEAD * workers))
        while ready:
            batch = ready.popleft().result()
            ready.extend(pool.submit(make, step) for step in islice(steps, 1))
            yield batch
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
