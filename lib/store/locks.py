"""One writer at a time, by flock: the kernel frees the lock when its holder dies, however it dies.

In:   a key and what it stands for
Out:  a context; who comes second is told who holds the lock, and waits
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lib.store import files

Progress = Callable[[str, float | None, float | None], None]  # a line of text, how much is done, of how much


@contextmanager
def lock(key: str, what: str, on_progress: Progress | None = None) -> Iterator[None]:
    """Hold `key` in this data folder. Who comes second is told who holds it, and waits."""
    path = files.root() / "_locks" / key
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        told = False
        while not _try(handle):
            if not told and on_progress:
                holder = os.pread(handle, 32, 0).decode().strip() or "unknown"
                on_progress(f"process {holder} is working on {what}; waiting for it", None, None)
            told = True
            time.sleep(0.2)  # not a blocking flock: Ctrl-C must work
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(handle)  # frees the lock


def _try(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
