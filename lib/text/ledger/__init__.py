"""The ledger: every attempt to get text from a teacher, one row each, never changed and never lost.

In:   an intent before each request goes out, an outcome when it has come back (dicts with the columns of SCHEMA)
Out:  data/requests/requests-<segment>.jsonl while a run writes it, requests-<segment>.parquet once it is sealed;
      `load` finds what was answered and spent, `requests_sql` shows both forms as one view

    rows.py      the columns, and what a status means
    writing.py   Writer: one line is one os.write
    sealing.py   intents meet their outcomes; an intent that never does was in flight when its process died: `lost`
    reading.py   what is known of a request, and the SQL view

A segment is sealed by writing its Parquet file in one step and deleting the JSONL after it; where both are there, the
Parquet file counts, so a crash between the two doubles nothing. Whoever writes holds the lock of the data folder
(`store.lock`): every JSONL that a new holder finds belongs to a dead process.
"""

from lib.text.ledger.reading import Answer, Past, load, requests_sql
from lib.text.ledger.rows import ANSWERED, IN_FLIGHT, LOST, READABLE, SCHEMA, folder_of, spent, storable
from lib.text.ledger.sealing import seal
from lib.text.ledger.writing import Writer

__all__ = [
    "ANSWERED",
    "IN_FLIGHT",
    "LOST",
    "READABLE",
    "SCHEMA",
    "Answer",
    "Past",
    "Writer",
    "folder_of",
    "load",
    "requests_sql",
    "seal",
    "spent",
    "storable",
]
