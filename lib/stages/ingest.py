"""Ingest: bring stories from files or a Hugging Face dataset into the columns every later stage knows.

In:   FILE.jsonl, FILE.json (one list), FILE.txt (stories end in <|endoftext|>), FILE.parquet, hf:DATASET[:CONFIG];
      held-out text likewise
Out:  raw stories in parts of `part_rows`; held-out text first, marked given_split = 'val'
Streams: one part is in memory at a time, beside some 100 bytes for each story's id.

A record has `text` or `story`, and may have `summary`, `id`, `source`, `verb`, `noun`, `adjective`, `features`,
`model`, `given_split`, or TinyStories' `instruction` with its three words and its features. Alpaca's records have
`instruction`, `input` and `output`, seed tasks `instruction` and `instances`: the output becomes the text of the row. A
story's id is a hash of its text, the id it came with and the task it answers, never of its place: it stays when others
are added before it. A second copy's id ends in "-2", a third one's in "-3".
"""

import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from pydantic import Field

from lib.errors import UserError
from lib.store import Config, Dataset, Draft, Stage
from lib.store.schemas import RAW, SIDES
from lib.text.alpaca import flat
from lib.text.sources import file_digest, records

STAGE = Stage("ingest", 2)
SURROGATE = re.compile("[\ud800-\udfff]")


class IngestConfig(Config):
    """Where the stories come from."""

    path: str = Field(description="FILE.jsonl, .json, .txt, .parquet or hf:DATASET[:CONFIG]")
    heldout: str | None = Field(None, description="text to measure with, in the same kinds")
    limit: int | None = Field(None, ge=1, description="read only so many stories of `path`")
    part_rows: int = Field(1000, ge=1, description="rows of one part, the unit of row-wise work")


def external(config: IngestConfig) -> dict[str, str]:
    """A digest of all that lies outside the store: part of the dataset's name, so that changed files are read again."""
    return {where: file_digest(where) for where in (config.path, config.heldout) if where is not None}


def ingest(draft: Draft, config: IngestConfig, **_: Dataset) -> None:
    """Write the parts. Raises UserError for what cannot be read, with the line, and for a source without a story."""
    made: Counter[bytes] = Counter()
    rows = itertools.chain(
        _rows(config.heldout, made, "val") if config.heldout else (),
        itertools.islice(_rows(config.path, made, None), config.limit),
    )
    for n in itertools.count():
        part = list(itertools.islice(rows, config.part_rows))
        if not part:
            break
        draft.write_table(f"part-{n:05d}.parquet", pa.Table.from_pylist(part, schema=RAW))
        draft.count(rows_in=len(part), rows_out=len(part))
        draft.progress(f"{draft.counts['rows_out']:,} stories read")


def _rows(where: str, made: Counter[bytes], side: str | None) -> Iterator[dict[str, Any]]:
    """The raw rows of one source; a source without any raises."""
    empty = True
    for place, source in records(where):
        for record in flat(source, place):
            empty = False
            yield _row(record, place, made, side)
    if empty:
        raise UserError(f"found no story in {where}, expected at least one: is it the right file?")


def _row(record: dict[str, Any], place: str, made: Counter[bytes], side: str | None) -> dict[str, Any]:
    words = _asked_words(record, place)
    row = {name: _string(record, name, place) for name in ("summary", "source", "model", "given_split")}
    text = _text(record, place)
    task = _task(record, place)
    if row["given_split"] not in (None, *SIDES):
        raise UserError(f"found given_split {row['given_split']!r} in {place}, expected {', '.join(SIDES)} or none")
    return (
        row
        | words
        | task
        | {
            "story_id": _story_id(text, _given_id(record, task), made),
            "text": text,
            "source": row["source"] or place.split(", ")[0].rpartition("/")[2],
            "given_split": side or row["given_split"],
        }
    )


def _text(record: dict[str, Any], place: str) -> str:
    for name in ("text", "story"):
        if name in record:
            return _string(record, name, place) or ""
    raise UserError(f"found a record with {sorted(record)} in {place}, expected a field `text` or `story`")


def _task(record: dict[str, Any], place: str) -> dict[str, str | None]:
    """The task that the text answers; TinyStories' `instruction` is an object, and none."""
    if not isinstance(record.get("instruction"), str):
        return {"instruction": None, "input": None}
    return {name: _string(record, name, place) for name in ("instruction", "input")}


def _given_id(record: dict[str, Any], task: dict[str, str | None]) -> str:
    """What tells stories of the same text apart; many tasks have the answer "Yes"."""
    given = str(record.get("id") or record.get("story_id") or "")
    return "\0".join([given, task["instruction"], task["input"] or ""]) if task["instruction"] else given


def _string(record: dict[str, Any], name: str, place: str) -> str | None:
    """A field as text Arrow can hold; half a surrogate pair becomes U+FFFD, which clean then judges."""
    value = record.get(name)
    if value is not None and not isinstance(value, str):
        raise UserError(f"found {name} = {value!r:.60} in {place}, expected text")
    return SURROGATE.sub("\ufffd", value) if value and not value.isascii() else value


def _asked_words(record: dict[str, Any], place: str) -> dict[str, Any]:
    """What the story was asked to hold: TinyStories' instruction, or flat fields."""
    asked = record.get("instruction")
    asked = asked if isinstance(asked, dict) else {}
    words = [*_strings(asked, "words", place), None, None, None][:3]
    names = ("verb", "noun", "adjective")
    flat = {name: _string(record, name, place) or word for name, word in zip(names, words, strict=True)}
    return {**flat, "features": _strings(record, "features", place) or _strings(asked, "features", place)}


def _strings(record: dict[str, Any], name: str, place: str) -> list[str]:
    """A field that is a list of texts; a missing one is an empty list."""
    value = record.get(name) or []
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise UserError(f"found {name} = {value!r:.60} in {place}, expected a list of texts")
    return value


def _story_id(text: str, given: str, made: Counter[bytes]) -> str:
    digest = hashlib.blake2b(f"{given}\0{text}".encode(), digest_size=8)
    made[digest.digest()] += 1
    copies = made[digest.digest()]
    return digest.hexdigest() if copies == 1 else f"{digest.hexdigest()}-{copies}"
