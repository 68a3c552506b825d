"""Sampling: prefixes of ids in, completions out, through a cache of keys and values.

In:   a network (lib/model/network.py), prefixes of any lengths, how to draw
Out:  per prefix the ids drawn, the model's log-probability of each, and whether a stop ended them
On:   lib/model/cache.py (rows that join and leave between steps) and lib/model/draw.py; a packed copy of the weights,
      taken when the Sampler is made: make a new one after an update (1-2 ms at 1M)

`Sampler.generate` writes many rows to their end; `Batch` is what it is made of, for callers whose rows come and go.

What makes it fast on a CPU (1.0-1.3M parameters, one core: see docs/results.md): norms and the attention scale folded
into the weights, one product for queries, keys and values, keys stored transposed, equal prefixes read once, and one
uniform number a token instead of torch.multinomial. torch.compile was slower at every batch size.

A row's random numbers are its own, so a prompt gets the same text alone and in company; only float rounding, which
differs by batch size (1e-6 in float32), could tip a draw.

Letters: B rows, U new rows, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from lib.errors import UserError
from lib.model.cache import Cache
from lib.model.draw import Draw, Draws, row_seeds
from lib.model.network import Llama
from lib.model.packed import Packed

BATCH = 64  # rows: 128 are not faster a token at 1M parameters, and hold twice the cache
NARROW = 128  # a model below this width writes half as many rows at once: then their cache stays near the core
Decode = Callable[[list[int]], str]


@dataclass(frozen=True)
class Completion:
    """What was drawn after one prefix."""

    ids: list[int]  # the stop id included, if one came, and all of the piece that completed a stop string
    logprobs: list[float]  # nats, under the model at this temperature (at 0: at 1), before penalty, top-k, top-p, min-p
    ended: bool  # a stop id or a stop string came; False: max_new or the model's max_length cut it off


@dataclass(eq=False)
class Row:
    """One prefix being continued. `ids` and `logprobs` grow by one a step until it is `done`."""

    prefix: list[int]
    max_new: int
    seed: np.random.SeedSequence
    how: Draw = field(default_factory=Draw)
    stop_ids: frozenset[int] = frozenset()
    stop_strings: tuple[str, ...] = ()
    decode: Decode | None = None  # of ids, where there are stop strings
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    ended: bool = False
    done: bool = False  # set from outside, it makes the row leave before the next step

    def __post_init__(self) -> None:
        if self.stop_strings and self.decode is None:
            raise ValueError("found stop strings, expected a function that decodes ids with them")
        numbers = np.random.Generator(np.random.Philox(self.seed)).random(max(self.max_new, 0), np.float32)
        self.uniforms: list[float] = numbers.tolist()
        self.reach = max((len(stop.encode()) for stop in self.stop_strings), default=0)
        self.done = self.max_new <= 0

    def take(self, piece: int, logprob: float) -> None:
        self.ids.append(piece)
        self.logprobs.append(logprob)
        self.ended = piece in self.stop_ids or (self.reach > 0 and self._stopped())
        self.done = self.done or self.ended or len(self.ids) >= self.max_new

    def _stopped(self) -> bool:
        """Whether the text so far ends with, or the last piece ran past, a stop string. Only the end is decoded.

        A piece is a byte at least, unless it is a control piece: those make the end that is decoded longer.
        """
        assert self.decode is not None
        width = self.reach + 4  # a character cut in two at the front is at most four bytes
        while True:
            text = self.decode(self.ids[-width:])
            if width >= len(self.ids) or len(text.encode()) >= self.reach + 4:
                return any(stop in text for stop in self.stop_strings)
            width *= 2


class Batch:
    """Rows that are written together; they join and leave between steps."""

    def __init__(self, weights: Packed, *, rows: int = 1, columns: int = 64) -> None:
        self.device = weights.device
        self.cache = Cache(weights, rows=rows, columns=columns)
        self.rows: list[Row] = []  # in the cache's order
        self.coming: list[Row] = []  # from the next step on
        self.drawn_B = torch.zeros(0, dtype=torch.long, device=self.device)
        self.seen_BV: Tensor | None = None  # which ids stand in prefix and completion; kept where a row is penalised

    def __len__(self) -> int:
        return sum(not row.done for row in self.rows + self.coming)

    def join(self, rows: Sequence[Row]) -> None:
        """Take rows in: their prefixes are read, and their first ids drawn, in the next step."""
        self.coming += rows

    @torch.inference_mode()
    def step(self) -> list[Row]:
        """Every row takes one id more; the rows that did, those that are done with it included."""
        self._leave()
        logits = [self.cache.step(self.drawn_B)] if self.rows else []
        coming, self.coming = [row for row in self.coming if not row.done], []
        if coming:
            logits.append(self.cache.join([row.prefix for row in coming]))
            self.rows += coming
            self._changed()
        if not self.rows:
            return []
        uniform_B = torch.tensor([row.uniforms[len(row.ids)] for row in self.rows], device=self.device)
        logits_BV = torch.cat(logits) if len(logits) > 1 else logits[0]
        self.drawn_B, logprob_B = self.draws(logits_BV, uniform_B, self.seen_BV)
        if self.seen_BV is not None:
            self.seen_BV.scatter_(1, self.drawn_B[:, None], True)
        for row, piece, logprob in zip(self.rows, self.drawn_B.tolist(), logprob_B.tolist(), strict=True):
            row.take(piece, logprob)
        return list(self.rows)

    def _leave(self) -> None:
        if not any(row.done for row in self.rows):
            return
        order = self.cache.keep([not row.done for row in self.rows])
        self.rows = [self.rows[place] for place in order]
        order_B = torch.tensor(order, dtype=torch.long, device=self.device)
        self.drawn_B = self.drawn_B[order_B]
        if self.seen_BV is not None:
            self.seen_BV = self.seen_BV[order_B]
        if self.rows:
            self._changed()

    def _changed(self) -> None:
        """Settings of the rows that are here now."""
        self.draws = Draws([row.how for row in self.rows], self.device)
        if not self.draws.penalised:
            self.seen_BV = None
            return
        vocab_size, here = self.cache.shape.vocab_size, 0 if self.seen_BV is None else len(self.seen_BV)
        new = torch.zeros(len(self.rows) - here, vocab_size, dtype=torch.bool)
        for place, row in enumerate(self.rows[here:]):
            new[place, row.prefix + row.ids] = True
        new = new.to(self.device)
        self.seen_BV = new if self.seen_BV is None else torch.cat((self.seen_BV, new))


class Sampler:
    """A model ready to write."""

    def __init__(self, model: Llama, max_length: int | None = None, dtype: torch.dtype | None = None) -> None:
        shape = model.shape
        self.shape = shape
        # RoPE was trained up to max_length positions and is not known to extrapolate: no row goes past it.
        self.max_length = min(max_length or shape.max_length, shape.max_length)
        self.weights = Packed(model, dtype or model.norm.weight.dtype)
        # One core, tokens/s of the forward pass at 64 and 32 rows: 35,800 and 43,200 at 260K parameters (width 64),
        # 10,750 and 10,890 at 1M (width 128), 2,430 and 2,020 at 15M (width 288).
        narrow = shape.d_model < NARROW and self.weights.device.type == "cpu"
        self.most_rows = BATCH // 2 if narrow else BATCH

    def generate(
        self,
        prefixes: Sequence[Sequence[int]],
        *,
        max_new: int,
        temperature: float = 1.0,
        top_p: float = 1.0,
        top_k: int = 0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        stop_ids: set[int],
        stop_strings: Sequence[str] = (),
        decode: Decode | None = None,
        n: int = 1,
        seed: int | Sequence[int] = 0,
    ) -> list[Completion]:
        """`n` completions a prefix, together, in the order of the prefixes. temperature 0 takes the likeliest piece.

        One seed for all: equal prefixes get different completions, the same wherever they stand. A list: one a
        completion. A stop string (found in what `decode` makes of the ids) ends a row with the piece that completes it.
        """
        how = Draw(temperature, top_p, top_k, min_p, repetition_penalty)
        prefixes = [prefix for prefix in prefixes for _ in range(n)]
        stops = {"stop_ids": frozenset(stop_ids), "stop_strings": tuple(stop_strings), "decode": decode}
        rows = [
            self.row(prefix, max_new=max_new, seed=each, how=how, **stops)
            for prefix, each in zip(prefixes, row_seeds(seed, prefixes), strict=True)
        ]
        waiting = sorted(rows, key=lambda row: -len(row.prefix))  # from the end: neighbours need little padding
        batch = self.batch(rows)
        while waiting or batch:
            # A quarter of the places at a time: reading few prefixes costs as much as a step of all rows.
            room = self.most_rows - len(batch)
            if waiting and room >= max(self.most_rows // 4, 1):
                batch.join(waiting[: -room - 1 : -1])
                del waiting[-room:]
            batch.step()
        return [Completion(row.ids, row.logprobs, row.ended) for row in rows]

    def row(self, prefix: Sequence[int], *, max_new: int, **how: object) -> Row:
        """A row for a Batch, cut to the model's room. Raises UserError if its prefix leaves none."""
        if len(prefix) >= self.max_length:
            raise UserError(
                f"found a prompt of {len(prefix)} tokens, expected at most {self.max_length - 1} "
                f"(the model's max_length is {self.max_length}): shorten it"
            )
        if not prefix:
            raise ValueError("found an empty prefix, expected at least one id (BOS)")
        return Row(list(prefix), min(max_new, self.max_length - len(prefix)), **how)  # type: ignore[arg-type]

    def batch(self, rows: Sequence[Row] = ()) -> Batch:
        """An empty batch with room for these rows."""
        if not rows:
            return Batch(self.weights)
        longest = max(len(row.prefix) for row in rows) + max(row.max_new for row in rows)
        return Batch(self.weights, rows=min(len(rows), self.most_rows), columns=longest)
