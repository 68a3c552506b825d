"""Where stories can lie: .jsonl, .json (one list), .txt with <|endoftext|>, .parquet, a Hugging Face dataset.

In:   a path, or hf:DATASET[:CONFIG]
Out:  (place, record) pairs, streamed; `place` says where a record stands, for error messages
Relies on the `datasets` package for hf: only, imported when it is asked for.
"""

import codecs
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lib.errors import UserError

END_OF_TEXT = b"<|endoftext|>"
BLOCK = 1 << 20  # bytes read at once
NEXT_ELEMENT = re.compile(r"\s*([\[,])\s*(?=[^\s\]])")
CLOSED = {"[": re.compile(r"\s*\[\s*\]\s*"), ",": re.compile(r"\s*\]\s*")}  # an empty list, or the end of one
DECODER = json.JSONDecoder()
LONGEST_STORY = 64 << 20  # bytes without <|endoftext|> before a .txt is taken for something else
Records = Iterator[tuple[str, dict[str, Any]]]


def records(where: str) -> Records:
    """Every record of one source. Raises UserError for a missing file, an unknown kind, an unreadable record."""
    if where.startswith("hf:"):
        return _hugging_face(where)
    return KINDS[_kind(where)](Path(where))


def file_digest(where: str) -> str:
    """sha256 of a file's content; for hf: the dataset's revision, or its name where nobody can be asked."""
    if where.startswith("hf:"):
        return _revision(where)
    _kind(where)
    with Path(where).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _kind(where: str) -> str:
    path = Path(where)
    if path.suffix not in KINDS:
        raise UserError(f"found {where!r}, expected a name that ends in {', '.join(KINDS)}, or hf:DATASET[:CONFIG]")
    if not path.is_file():
        raise UserError(f"found no file {where} (looked in {Path.cwd()}): give the path of a file that exists")
    if not path.stat().st_size:
        raise UserError(f"found an empty file {where}, expected stories")
    return path.suffix


def _jsonl(path: Path) -> Records:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            place = f"{path}, line {number}"
            if line.isspace():
                continue
            try:
                record = json.loads(line)
            except ValueError as error:  # also bytes that are not UTF-8
                raise UserError(f"found no JSON in {place} ({error}), expected an object: {line[:60]!r}") from error
            if not isinstance(record, dict):
                raise UserError(f"found {type(record).__name__} in {place}, expected an object with `text` or `story`")
            yield place, record


def _json(path: Path) -> Records:
    """The objects of one JSON list, as alpaca_data.json has them, streamed."""
    for number, value in enumerate(_elements(path), 1):
        if not isinstance(value, dict):
            raise UserError(f"found {type(value).__name__} in {path}, record {number}, expected an object")
        yield f"{path}, record {number}", value


def _elements(path: Path) -> Iterator[Any]:
    """The elements of a JSON list of objects; a block and one element are in memory at a time."""
    number, mark, text = 0, "[", ""  # mark: what stands before the next element
    with path.open("rb") as file:
        decode = codecs.getincrementaldecoder("utf-8-sig")()
        for block in iter(lambda: file.read(BLOCK), b""):
            try:
                text += decode.decode(block)
            except UnicodeDecodeError as error:
                raise UserError(f"found bytes that are not UTF-8 in {path} ({error}): save it as UTF-8") from error
            at = 0
            while (found := NEXT_ELEMENT.match(text, at)) and found[1] == mark:
                try:
                    value, end = DECODER.raw_decode(text, found.end())
                except ValueError:
                    break  # not whole yet, or never: what is left at the end decides
                number, mark, at = number + 1, ",", end
                yield value
            text = text[at:]
            if len(text) > LONGEST_STORY:
                break
    if not CLOSED[mark].fullmatch(text):
        raise UserError(
            f"found no JSON list in {path}: after record {number} stands {text.strip()[:60]!r}, expected one list of "
            "objects; for one object a line, name the file .jsonl"
        )


def _txt(path: Path) -> Records:
    for number, raw in enumerate(_between_marks(path), 1):
        place = f"{path}, story {number}"
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            raise UserError(f"found bytes that are not UTF-8 in {place} ({error}): save the file as UTF-8") from error
        if text.strip():
            yield place, {"text": text}


def _between_marks(path: Path) -> Iterator[bytes]:
    rest, marks = b"", 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            *whole, rest = (rest + block).split(END_OF_TEXT)
            marks += len(whole)
            yield from whole
            if len(rest) > LONGEST_STORY:
                break
    if not marks or len(rest) > LONGEST_STORY:
        raise UserError(f"found {marks} <|endoftext|> in {path}, expected one after each story, or a .jsonl file")
    yield rest


def _parquet(path: Path) -> Records:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        batches = pq.ParquetFile(path).iter_batches(batch_size=1000)
        number = 0
        for batch in batches:
            for record in batch.to_pylist():
                number += 1
                yield f"{path}, row {number}", record
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"found a damaged Parquet file {path} ({error}): fetch it again") from error


KINDS: dict[str, Callable[[Path], Records]] = {".jsonl": _jsonl, ".json": _json, ".txt": _txt, ".parquet": _parquet}


# ---- Hugging Face


def _named(where: str) -> tuple[str, str | None]:
    name, _, config = where.removeprefix("hf:").partition(":")
    if not name:
        raise UserError(f"found {where!r}, expected hf:DATASET or hf:DATASET:CONFIG, as in hf:roneneldan/TinyStories")
    return name, config or None


def _hugging_face(where: str) -> Records:
    import datasets

    name, config = _named(where)
    try:
        rows = datasets.load_dataset(name, config, split="train", streaming=True)
    except (OSError, ValueError) as error:  # not found, no such config, or nobody to ask
        raise UserError(f"found no dataset {name!r} to read ({error}): check its name and your network") from error
    for number, record in enumerate(rows, 1):
        yield f"{where}, row {number}", record


def _revision(where: str) -> str:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    name, _ = _named(where)
    if Path(name).is_dir():
        files = sorted(path for path in Path(name).rglob("*") if path.is_file())
        digests = (f"{path.relative_to(name)} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in files)
        return hashlib.sha256("\n".join(digests).encode()).hexdigest()
    try:
        return HfApi().dataset_info(name, timeout=5).sha or name
    except (OSError, HfHubHTTPError, HFValidationError):  # nobody to ask
        return name
