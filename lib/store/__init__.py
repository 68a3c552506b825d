"""Datasets on disk: the only room that knows how data/ is laid out.

`build` makes or finds a dataset, `Dataset` is the handle that travels, `Draft` is a dataset being written,
`connect` opens DuckDB over everything finished.
"""

from lib.store import schemas
from lib.store.build import build, delete, find_or_discard, mark_used, raise_if_full, request_name
from lib.store.catalogue import connect, finished, newest, newest_of, write_catalogue
from lib.store.dataset import CorruptDataset, Dataset, Part, find, read_manifest
from lib.store.draft import Draft, PartResult, Progress
from lib.store.files import root
from lib.store.identity import Config, Stage, digest, runtime
from lib.store.locks import lock

__all__ = [
    "Config",
    "CorruptDataset",
    "Dataset",
    "Draft",
    "Part",
    "PartResult",
    "Progress",
    "Stage",
    "build",
    "connect",
    "delete",
    "digest",
    "find",
    "find_or_discard",
    "finished",
    "lock",
    "mark_used",
    "newest",
    "newest_of",
    "raise_if_full",
    "read_manifest",
    "request_name",
    "root",
    "runtime",
    "schemas",
    "write_catalogue",
]
