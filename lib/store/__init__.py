"""Datasets on disk: the only room that knows how data/ is laid out.

`build` makes or finds a dataset, `Dataset` is the handle that travels, `Draft` is a dataset being written,
`connect` opens DuckDB over everything finished.
"""

from lib.store import schemas
from lib.store.build import build, delete, find_or_discard, lock, request_name
from lib.store.catalogue import connect, finished, newest, write_catalogue
from lib.store.dataset import CorruptDataset, Dataset, Part, find, read_manifest
from lib.store.draft import Draft, PartResult, Progress
from lib.store.files import root
from lib.store.identity import Config, Stage, digest, runtime

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
    "newest",
    "read_manifest",
    "request_name",
    "root",
    "runtime",
    "schemas",
    "write_catalogue",
]
