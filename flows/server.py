"""Find or start the local Prefect server. Imports no Prefect: its settings must be in the environment before.

A server of the user's own is used where PREFECT_API_URL names one. Otherwise ours lives in .prefect/ beside this
checkout: its database, its log, and a password of its own, because a server without one answers any web page that is
open in the user's browser, and gives out stored secrets.
"""

import fcntl
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lib.errors import UserError

PORT = 4200  # Prefect's own
START_S = 120.0  # 5 s warm, 13 s with a fresh database, more on a loaded machine


def home() -> Path:
    return Path(os.environ.get("PREFECT_HOME", ".prefect")).absolute()


def ensure() -> str:
    """Point this process at a running server, started if need be, and return the address of its page."""
    if url := os.environ.get("PREFECT_API_URL"):
        _probe(url)
        return url.removesuffix("/api")
    with _locked():
        server = _awaited() or _start()
    os.environ |= _client_environment(server)
    return _page(server)


def running() -> dict | None:
    """Our server, if it answers."""
    server = _recorded()
    return server if server and _healthy(server) else None


def _awaited() -> dict | None:
    """Our server, however slow to answer: as long as its process lives, another run may be using it."""
    deadline = time.monotonic() + START_S
    while (server := _recorded()) and _is_ours(server["pid"]) and time.monotonic() < deadline:
        if _healthy(server):
            return server
        time.sleep(0.2)
    return None


def _recorded() -> dict | None:
    """The server that was started last, ready or not; a broken record is none."""
    try:
        return json.loads((home() / "server.json").read_text())
    except (FileNotFoundError, ValueError):
        return None


def login() -> str | None:
    """What the page asks for, where this process talks to our server."""
    server = running()
    ours = server and os.environ.get("PREFECT_API_URL") == f"{_page(server)}/api"
    return server["auth"] if server and ours else None


def _probe(url: str) -> None:
    """UserError where nothing answers at the user's own address."""
    try:
        urllib.request.urlopen(f"{url.rstrip('/')}/health", timeout=10).close()
    except urllib.error.HTTPError:
        return  # it answers; what it thinks of us, Prefect's client will say
    except (OSError, ValueError) as error:
        raise UserError(
            f"PREFECT_API_URL is {url}, and no Prefect server answers there ({error}); start it, or unset the variable "
            "to use a local one"
        ) from None


def stop() -> bool:
    """End our server. False if none was running."""
    server = _recorded()
    if server is None:
        return False
    (home() / "server.json").unlink()
    if not _is_ours(server["pid"]):
        return False
    os.killpg(server["pid"], signal.SIGTERM)
    return True


def _is_ours(pid: int) -> bool:
    """Whether that process is a Prefect server still, and not somebody who got its number."""
    command = Path(f"/proc/{pid}/cmdline")
    if command.parent.parent.is_dir() and Path("/proc/self").exists():
        return command.exists() and b"prefect" in command.read_bytes()
    return subprocess.run(["ps", "-p", str(pid)], capture_output=True, check=False).returncode == 0


def _start() -> dict:
    """A new server on a free port, ready to answer."""
    home().mkdir(parents=True, exist_ok=True)
    home().chmod(0o700)  # the database holds blocks and their key
    if stop():  # one that lives and never came up: two on one database would quarrel
        time.sleep(1)
    print("starting a Prefect server for this folder …", flush=True)
    port = _free_port()
    server = {"port": port, "auth": _password()}
    with (home() / "server.log").open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start"],
            env=os.environ | _server_environment(server),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # it outlives this command, so that the page stays
        )
    server["pid"] = child.pid
    _write_private(home() / "server.json", json.dumps(server))  # at once: a kill on the way must not orphan it
    started = time.monotonic()
    try:
        while not _healthy(server):
            if child.poll() is not None or time.monotonic() - started > START_S:
                raise UserError(
                    f"the Prefect server did not come up on port {port} within {time.monotonic() - started:.0f} s; "
                    f"{home() / 'server.log'} says why. With a server of your own, set PREFECT_API_URL."
                )
            time.sleep(0.2)
    except BaseException:  # Ctrl-C too
        stop()
        raise
    return server


def _page(server: dict) -> str:
    return f"http://127.0.0.1:{server['port']}"


def _client_environment(server: dict) -> dict[str, str]:
    return {
        "PREFECT_HOME": str(home()),
        "PREFECT_API_URL": f"{_page(server)}/api",
        "PREFECT_API_AUTH_STRING": server["auth"],
        "DO_NOT_TRACK": "1",
    }


def _server_environment(server: dict) -> dict[str, str]:
    # The port by its setting: with --port alone the page goes on asking port 4200.
    return _client_environment(server) | {
        "PREFECT_SERVER_API_HOST": "127.0.0.1",
        "PREFECT_SERVER_API_PORT": str(server["port"]),
        "PREFECT_SERVER_API_AUTH_STRING": server["auth"],
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": _page(server),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }


def _healthy(server: dict) -> bool:
    """Whether it is ours that answers: another server on the port does not know the password."""
    token = b64encode(server["auth"].encode()).decode()
    request = urllib.request.Request(f"{_page(server)}/api/admin/version", headers={"Authorization": f"Basic {token}"})
    try:
        with urllib.request.urlopen(request, timeout=2) as answer:
            return answer.status == 200
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def _free_port() -> int:
    """Prefect's port, or any other where that one is taken."""
    for port in (PORT, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return probe.getsockname()[1]
    raise UserError("no free port on 127.0.0.1 for the Prefect server")


def _password() -> str:
    """Made once per checkout, readable by its owner alone."""
    path = home() / "password"
    if not path.exists() or not path.read_text().startswith("admin:"):
        _write_private(path, f"admin:{secrets.token_urlsafe(9)}")
    return path.read_text()


def _write_private(path: Path, text: str) -> None:
    """Whole or not at all, and for its owner alone."""
    draft = path.with_name(f"_{path.name}.{os.getpid()}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(handle)
    draft.replace(path)


@contextmanager
def _locked() -> Iterator[None]:
    """Two commands at once must not start two servers."""
    home().mkdir(parents=True, exist_ok=True)
    with (home() / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
