"""The built-in storyteller: a deterministic, seeded story grammar behind an OpenAI-compatible endpoint on the loopback.

In:   chat requests that ask for a verb, a noun, an adjective and features
Out:  stories of 60 to 250 simple words with a matching summary. It is no language model, and every answer names it
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from lib.errors import TransientError
from lib.text.storyteller.mischief import HARMLESS, Mischief

MODEL = "storyteller-1"
HOUSE = Path(__file__).parents[3]

__all__ = ["HARMLESS", "MODEL", "Mischief", "running"]


@contextlib.contextmanager
def running(mischief: Mischief | None = None, seed: int = 0) -> Iterator[str]:
    """A storyteller in a child process while the block lasts; gives its base_url ("http://127.0.0.1:PORT/v1").

    The child ends with the block, and within a quarter of a second also when this process is killed.
    """
    command = [sys.executable, "-m", "lib.text.storyteller", "--seed", str(seed), "--parent", str(os.getpid())]
    command += mischief.flags() if mischief else []
    paths = os.pathsep.join([str(HOUSE), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": paths}
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        line = child.stdout.readline()
        if not line:
            code = child.wait()
            raise TransientError(
                f"the storyteller ended with exit code {code}, expected it to serve; see {' '.join(command)}"
            )
        yield json.loads(line)["base_url"]
    finally:
        child.terminate()
        try:
            child.wait(timeout=5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        child.stdout.close()
