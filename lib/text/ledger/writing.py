"""Writing the ledger: when `append` returns, the line survives the death of the process.

One line is one os.write on an O_APPEND descriptor, so kill -9 loses nothing that was appended; fdatasync follows
within a second and at the end, so a machine that loses power can lose that second.
"""

import errno
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

from lib.text.ledger.rows import folder_of, storable

SYNC_SECONDS = 1.0


class Writer:
    """A segment of this process's own. Use it in a `with` block, under the data folder's lock."""

    def __init__(self, root: Path) -> None:
        folder_of(root).mkdir(parents=True, exist_ok=True)
        self.path = folder_of(root) / f"requests-{time.time_ns()}-{os.getpid()}.jsonl"  # a label: only unique
        self._handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        self._size = 0
        self._dirty = False
        self._failure: OSError | None = None
        self._closing = threading.Event()
        self._syncing = threading.Thread(target=self._sync_now_and_then, name="ledger", daemon=True)
        self._syncing.start()

    def append(self, row: dict[str, Any]) -> None:
        """Write one attempt down. When this returns, the row survives the death of the process."""
        if self._failure:
            raise self._failure
        kept = {name: storable(value) if isinstance(value, str) else value for name, value in row.items()}
        line = json.dumps(kept, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        written = os.write(self._handle, line)
        if written != len(line):  # the disk is full: no half line stays
            os.ftruncate(self._handle, self._size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        self._size += written
        self._dirty = True

    def flush(self) -> None:
        """Everything appended so far is on the disk when this returns."""
        os.fdatasync(self._handle)

    def close(self) -> None:
        """Flush to the disk; the segment stays JSONL until somebody seals it."""
        self._closing.set()
        self._syncing.join()
        os.fdatasync(self._handle)
        os.close(self._handle)
        if self._failure:
            raise self._failure

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _sync_now_and_then(self) -> None:
        while not self._closing.wait(SYNC_SECONDS):
            if self._dirty:
                self._dirty = False
                try:
                    os.fdatasync(self._handle)
                except OSError as error:
                    self._failure = error  # append and close raise it
                    return
