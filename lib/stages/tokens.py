"""Tokens: every story as ids in flat files that a trainer maps into memory, beside an index that DuckDB reads.

In:   split stories, a tokenizer
Out:  tokens-NNNNN.bin (flat uint16, uint32 above 65,536 pieces), one a part; part-NNNNN.parquet: where each story lies
Relies on lib/text/template.py for the ids of each layout.

A layout with a prompt skips stories without a summary (dropped as `no_summary`). A part without a story has no shard.
"""

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field, field_validator

from lib.store import Config, Dataset, Draft, PartResult, Stage
from lib.text.template import BOS, EOS, LAYOUTS, Template, layout_of
from lib.text.tokenizer import Tokenizer

STAGE = Stage("tokens", 1)


class TokensConfig(Config):
    """The form in which stories become training sequences."""

    layout: str = Field("pretrain", description=f"one of {', '.join(LAYOUTS)}: what stands around a story")

    @field_validator("layout")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in LAYOUTS:
            raise ValueError(f"found {name!r}, expected one of {', '.join(LAYOUTS)}")
        return name


def tokens(draft: Draft, config: TokensConfig, *, stories: Dataset, tokenizer: Dataset) -> None:
    """Write one shard and one index per part."""
    template = Template(Tokenizer.load(tokenizer.file("tokenizer.model")))
    salt = f"{tokenizer.fingerprint}/{template.digest}"
    draft.each_part(stories, config, lambda table, n: tokens_part(table, n, config.layout, template), salt)
    draft.fact(
        dtype=template.tokenizer.dtype.name,
        layout=config.layout,
        template=template.digest,
        tokenizer=tokenizer.fingerprint,
        vocab_size=template.tokenizer.vocab_size,
        **_totals(draft, config.layout),
    )


def tokens_part(table: pa.Table, n: int, layout: str, template: Template) -> PartResult:
    """One part's ids, one after the other, and where each story lies among them."""
    asked = pc.fill_null(pc.not_equal(pc.utf8_trim_whitespace(table["summary"]), ""), False)
    stays = asked if layout_of(layout).has_prompt else pa.chunked_array([pa.array([True] * len(table), pa.bool_())])
    kept, gone = table.filter(stays), table.filter(pc.invert(stays))
    ids, offsets, prompt_lengths = template.training_columns(layout, kept["summary"], kept["text"])
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
    reason, detail = (
        pa.array([word] * len(gone), pa.string()) for word in ("no_summary", f"layout {layout} asks for one")
    )
    dropped = pa.table({"story_id": gone["story_id"], "reason": reason, "detail": detail})
    shard = {f"tokens-{n:05d}.bin": ids} if len(ids) else {}
    drops = {"no_summary": len(gone)} if len(gone) else {}
    files = {f"part-{n:05d}.parquet": index, f"_dropped/part-{n:05d}.parquet": dropped, **shard}
    return PartResult(files, rows_in=len(table), rows_out=len(kept), drops=drops)


def _totals(draft: Draft, layout: str) -> dict[str, object]:
    """Tokens by side, and bytes of story for each id of story (prompt, bos and eos not counted)."""
    num_tokens: Counter[str] = Counter()
    num_bytes = num_story_ids = 0
    num_controls = sum(part in (BOS, EOS) for part in LAYOUTS[layout].training)
    for name in sorted(name for name in draft.files if name.startswith("part-")):
        index = pq.read_table(draft.path / name, columns=["split", "length", "prompt_length", "text_bytes"])
        for row in index.group_by("split").aggregate([("length", "sum")]).to_pylist():
            num_tokens[row["split"]] += row["length_sum"]
        num_bytes += pc.sum(index["text_bytes"]).as_py() or 0
        num_story_ids += pc.sum(pc.subtract(index["length"], index["prompt_length"])).as_py() or 0
        num_story_ids -= num_controls * len(index)
    return {"tokens": dict(sorted(num_tokens.items())), "bytes_per_token": round(num_bytes / max(num_story_ids, 1), 4)}
