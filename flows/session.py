"""A run from the terminal: a server, the flow, and what the user sees of both."""

import logging
import os
import subprocess
import sys
import time

from flows import server
from lib import stages, store
from lib.errors import Stopped, TransientError, UserError
from lib.presets import Chain

POOL = "storymill"


def run(config: Chain, more: int | None = None) -> None:
    """The whole chain on a local server; then what came of it."""
    started = time.monotonic()
    if config.ingest:
        stages.external("ingest", config.ingest)  # a missing file is said before anything is started
    page = server.ensure()
    os.environ.setdefault(
        "PREFECT_LOGGING_FORMATTERS_STANDARD_TASK_RUN_FMT", "%(asctime)s  %(task_run_name)-15s %(message)s"
    )
    os.environ.setdefault(
        "PREFECT_LOGGING_FORMATTERS_STANDARD_FLOW_RUN_FMT", "%(asctime)s  %(flow_name)-15s %(message)s"
    )
    os.environ.setdefault("PREFECT_LOGGING_FORMATTERS_STANDARD_DATEFMT", "%H:%M:%S")
    login = f"   log in with {server.login()}" if server.login() else ""
    print(f"Prefect's page: {page}{login}\ndata folder:    {store.root()}\n", flush=True)

    from prefect.exceptions import CancelledRun

    from flows.nightly import nightly  # Prefect reads its settings on import: after the server is known
    from lib.web import terminal

    say_errors_once()
    try:
        made = nightly(config, more)
    except CancelledRun as stop:
        raise Stopped(str(stop)) from None
    terminal.show_summary(made, seconds=time.monotonic() - started, page=page)


def say_errors_once() -> None:
    """What `main` prints as one message need not come as four tracebacks before; the UI shows it with the state."""

    def worth_showing(record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], UserError | TransientError | Stopped):
            return False
        if str(record.msg).startswith("Finished in state Failed("):
            record.msg = "Finished in state Failed"
        return True

    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(worth_showing)


def ui() -> None:
    """Server, deployments, worker: what `make ui` starts. Ends with Ctrl-C; the server stays until `storymill down`."""
    page = server.ensure()
    login = f"   log in with {server.login()}" if server.login() else ""
    print(f"Prefect's page: {page}{login}", flush=True)
    prefect("work-pool", "create", POOL, "--type", "process", "--overwrite")
    prefect("deploy", "--all")
    print("The worker runs what is due; Ctrl-C ends it, `storymill down` stops the server.", flush=True)
    prefect("worker", "start", "--pool", POOL, "--limit", "1", "--name", "storymill")


def prefect(*words: str) -> None:
    """One command of Prefect's own."""
    done = subprocess.run([sys.executable, "-m", "prefect", "--no-prompt", *words], check=False)
    if done.returncode:
        raise UserError(f"`prefect {' '.join(words)}` ended with exit code {done.returncode}; see above")
