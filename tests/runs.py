"""Real runs for tests: the command line in a child process, on a Prefect server and a data folder of the test's own."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from base64 import b64encode
from pathlib import Path
from typing import Any

HOUSE = Path(__file__).parent.parent
SMOKE = ["run", "--preset", "smoke"]


def environment(home: Path, data: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
    return kept | {"PREFECT_HOME": str(home), "STORYMILL_DATA": str(data), "OPENAI_API_KEY": ""}


def storymill(*words: str, home: Path, data: Path, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """One command, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "flows", *words],
        cwd=HOUSE,
        env=environment(home, data),
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def start(*words: str, home: Path, data: Path, log: Path) -> subprocess.Popen[bytes]:
    """One command, left running, for a test that kills it."""
    with log.open("ab") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "flows", *words],
            cwd=HOUSE,
            env=environment(home, data),
            stdout=out,
            stderr=subprocess.STDOUT,
        )


def kill_tree(pid: int) -> None:
    """SIGKILL to a process and everything below it, at once."""
    below: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        below.setdefault(parent, []).append(int(stat.parent.name))
    doomed = [pid]
    for each in doomed:
        doomed += below.get(each, [])
    for each in doomed:
        try:
            os.kill(each, signal.SIGKILL)
        except ProcessLookupError:
            continue


def digests(data: Path) -> dict[str, str]:
    """stage/name → fingerprint, of everything finished in a data folder."""
    from lib.store.dataset import fingerprint_of, read_manifest

    manifests = sorted(data.glob("[!_]*/[!_]*/_manifest.json"))
    return {
        path.parent.relative_to(data).as_posix(): fingerprint_of(read_manifest(path.parent)["files"])
        for path in manifests
    }


def api(home: Path, path: str, body: dict[str, Any] | None = None) -> Any:
    """One call to the test's Prefect server."""
    server = json.loads((home / "server.json").read_text())
    token = b64encode(server["auth"].encode()).decode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{server['port']}/api{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Basic {token}", "Content-Type": "application/json"},
    )
    for _ in range(20):
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            if error.code != 503:  # SQLite is busy: Prefect's own client comes back later, too
                raise
            time.sleep(1)
    raise TimeoutError(f"the Prefect server was busy for 20 s: {path}")
