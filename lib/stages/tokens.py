"""Tokens: every story as ids in flat files that a trainer maps into memory, beside an index that DuckDB reads.

In:   split stories or tasks, a tokenizer
Out:  tokens-NNNNN.bin (flat uint16, uint32 above 65,536 pieces), one a part; part-NNNNN.parquet: where each story lies
Relies on lib/text/template.py for the ids of each layout, and on lib/text/requests.py for what a row is asked for by.

Dropped, where the layout has a prompt, are rows that nothing asks for (`no_summary`), and sequences above `max_length`
(`too_long`). A part without a story has no shard. With `turns`, rows of a part and a side of the split follow one
another in conversations: a row's sequence then begins with the tasks before it, answered, and those belong to its
prompt. Every answer is so learned once, at each place of a conversation.
"""

from collections import Counter
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field, field_validator, model_validator

from lib.store import Config, Dataset, Draft, PartResult, Stage
from lib.text.requests import requests
from lib.text.template import LAYOUTS, STORY, Template, digest_of, layout_of
from lib.text.tokenizer import Tokenizer

STAGE = Stage("tokens", 1)
PADDED_LENGTH = 350  # of cindysridykhan's rows, which are all of one length


class TokensConfig(Config):
    """The form in which stories become training sequences."""

    layout: str = Field("pretrain", description=f"one of {', '.join(LAYOUTS)}: what stands around a story")

    max_length: int | None = Field(
        None, ge=8, description=f"longer sequences are dropped; padded: above {PADDED_LENGTH} if not given"
    )
    turns: int = Field(1, ge=1, le=16, description="alpaca: so many tasks follow one another in a conversation")

    @field_validator("layout")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in LAYOUTS:
            raise ValueError(f"found {name!r}, expected one of {', '.join(LAYOUTS)}")
        return name

    @model_validator(mode="after")
    def _turns_fit_the_layout(self) -> Self:
        if self.turns > 1 and LAYOUTS[self.layout].again is None:
            raise ValueError(f"found turns = {self.turns} in layout {self.layout}, expected 1: alpaca alone has turns")
        return self

    @property
    def longest(self) -> int | None:
        return self.max_length or (None if LAYOUTS[self.layout].packed else PADDED_LENGTH)


def tokens(draft: Draft, config: TokensConfig, *, stories: Dataset, tokenizer: Dataset) -> None:
    """Write one shard and one index per part."""
    template, digest = Template(Tokenizer.load(tokenizer.file("tokenizer.model"))), digest_of(config.layout)
    salt = f"{tokenizer.fingerprint}/{digest}"
    draft.each_part(stories, config, lambda table, n: tokens_part(table, n, config, template), salt)
    draft.fact(
        dtype=template.tokenizer.dtype.name,
        layout=config.layout,
        template=digest,
        tokenizer=tokenizer.fingerprint,
        vocab_size=template.tokenizer.vocab_size,
        **_totals(draft, config.layout),
    )


def tokens_part(table: pa.Table, n: int, config: TokensConfig, template: Template) -> PartResult:
    """One part's ids, one after the other, and where each story lies among them."""
    layout, asked = config.layout, [None, None]
    stays = pa.array(np.ones(len(table), bool))
    if layout_of(layout).has_prompt:
        asked = list(requests(table, layout))
        stays = pc.is_valid(asked[0])
        asked = [column.filter(stays) for column in asked]
    kept, gone = table.filter(stays), table.filter(pc.invert(stays))
    talks = conversations(kept["split"], config.turns) if config.turns > 1 else None
    ids, offsets, prompt_lengths = template.training_columns(layout, asked[0], kept["text"], asked[1], talks)
    index = pa.table(
        {
            "story_id": kept["story_id"],
            "split": kept["split"],
            "shard": pa.array(np.full(len(kept), n), pa.int32()),
            "offset": pa.array(offsets[:-1], pa.int64()),
            "length": pa.array(np.diff(offsets), pa.int32()),
            "prompt_length": pa.array(prompt_lengths, pa.int32()),
            "text_bytes": pc.binary_length(kept["text"]),
            "layout": pa.array([layout] * len(kept), pa.string()),
        }
    )
    dropped = _dropped(gone["story_id"], "no_summary", [f"layout {layout} asks for one"] * len(gone))
    if config.longest and len(ids):
        index, ids, long = _short(index, ids, config.longest)
        dropped = pa.concat_tables([dropped, long])
    drops = {row["values"]: row["counts"] for row in dropped["reason"].value_counts().to_pylist()}
    shard = {f"tokens-{n:05d}.bin": ids} if len(ids) else {}
    files = {f"part-{n:05d}.parquet": index, f"_dropped/part-{n:05d}.parquet": dropped, **shard}
    return PartResult(files, rows_in=len(table), rows_out=len(index), drops=drops)


def conversations(split: pa.ChunkedArray, turns: int) -> np.ndarray:
    """(n, turns): the rows of each row's conversation up to itself, -1 behind. Rows of a side follow one another."""
    sides = split.combine_chunks().dictionary_encode().indices.to_numpy()
    order = np.argsort(sides, kind="stable")
    counts = np.bincount(sides)
    places = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)  # of each row within its side
    place = places % turns
    talks = np.arange(len(order))[:, None] - place[:, None] + np.arange(turns)
    talks = np.where(np.arange(turns) <= place[:, None], order[np.minimum(talks, len(order) - 1)], -1)
    out = np.empty_like(talks)
    out[order] = talks
    return out


def _short(index: pa.Table, ids: np.ndarray, longest: int) -> tuple[pa.Table, np.ndarray, pa.Table]:
    """The sequences of at most `longest` tokens, close together again; and the dropped rows of the others."""
    lengths = index["length"].to_numpy()
    fits = lengths <= longest
    kept, gone = index.filter(pa.array(fits)), index.filter(pa.array(~fits))
    starts = np.cumsum(lengths[fits], dtype=np.int64) - lengths[fits]
    kept = kept.set_column(kept.column_names.index("offset"), "offset", pa.array(starts, pa.int64()))
    said = [f"{length} tokens, more than {longest}" for length in gone["length"].to_pylist()]
    return kept, ids[np.repeat(fits, lengths)], _dropped(gone["story_id"], "too_long", said)


def _dropped(story_ids: pa.ChunkedArray, reason: str, details: list[str]) -> pa.Table:
    columns = {"reason": [reason] * len(details), "detail": details}
    return pa.table({"story_id": story_ids} | {name: pa.array(each, pa.string()) for name, each in columns.items()})


def _totals(draft: Draft, layout: str) -> dict[str, object]:
    """Tokens by side, and bytes of story for each id of story (prompt, bos and eos not counted)."""
    num_tokens: Counter[str] = Counter()
    num_bytes = num_story_ids = 0
    num_controls = sum(part != STORY for part in LAYOUTS[layout].split[1])  # that follow the prompt
    for name in sorted(name for name in draft.files if name.startswith("part-")):
        index = pq.read_table(draft.path / name, columns=["split", "length", "prompt_length", "text_bytes"])
        for row in index.group_by("split").aggregate([("length", "sum")]).to_pylist():
            num_tokens[row["split"]] += row["length_sum"]
        num_bytes += pc.sum(index["text_bytes"]).as_py() or 0
        num_story_ids += pc.sum(pc.subtract(index["length"], index["prompt_length"])).as_py() or 0
        num_story_ids -= num_controls * len(index)
    return {"tokens": dict(sorted(num_tokens.items())), "bytes_per_token": round(num_bytes / max(num_story_ids, 1), 4)}
