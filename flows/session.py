"""A run from the terminal: a server, the flow, and what the user sees of both."""

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable

from flows import server
from flows.wiring import Made
from lib import stages, store
from lib.errors import Stopped, TransientError, UserError
from lib.overrides import with_overrides
from lib.presets import Chain, StoriesConfig

POOL = "storymill"


def run(config: Chain, more: int | None = None) -> None:
    """The whole chain on a local server; then what came of it."""
    started = time.monotonic()
    page = start(config)
    from flows.nightly import nightly  # Prefect reads its settings on import: after the server is known
    from lib.web import terminal

    made = _in_the_open(nightly, config, more)
    terminal.show_summary(made, seconds=time.monotonic() - started, page=page)


def generate(config: Chain, more: int | None = None) -> None:
    """The stories alone: asked for or read, cleaned, without duplicates, split."""
    start(config)
    made = _stories(config, more)
    from lib.web import terminal

    terminal.render_summary(made)


def generate_thin(config: Chain, question: str, count: int | None = None) -> None:
    """Ask for stories on what is thin in `question`; coverage before and after, and how later runs keep them."""
    from lib.web import coverage, terminal, thin

    if config.ingest:
        raise UserError("--thin asks a teacher for stories: leave out --stories")
    before = coverage.coverage(store.connect(), question)
    start(config)
    from flows.run import grown, require_same_plan  # Prefect reads its settings on import

    require_same_plan(config)
    so_far = grown(config, 0)
    plan = thin.with_extras(so_far.generate.plan, before, count)
    coverage.show(before)
    print(f"\n{thin.told(so_far.generate.plan, plan)}\n", flush=True)
    made = _stories(with_overrides(so_far, {"generate": {"plan": plan.model_dump()}}))
    terminal.render_summary(made)
    coverage.show(coverage.coverage(store.connect(), question))
    print(f"\n--more 0 keeps them in a run, and so do these flags:\n{thin.flags(plan)}")


def _stories(config: Chain, more: int | None = None) -> Made:
    """The flow `stories` with the chain's own settings."""
    from flows.stories import stories  # Prefect reads its settings on import: after the server is known

    fields = {name: getattr(config, name) for name in StoriesConfig.model_fields}
    return _in_the_open(stories, StoriesConfig(**fields), more)


def _in_the_open(flow: Callable[..., Made], config: StoriesConfig, more: int | None) -> Made:
    """Run a flow from the terminal: its errors are said once, and a stop that was asked for is Stopped again."""
    from prefect.exceptions import CancelledRun

    say_errors_once()
    try:
        return flow(config, more)
    except CancelledRun as stop:
        raise Stopped(str(stop)) from None


def start(config: StoriesConfig) -> str:
    """A server that runs, and what Prefect prints of a flow in the house's form; the address of its page."""
    if config.ingest:
        stages.external("ingest", config.ingest)  # a missing file is said before anything is started
    if adopted := getattr(config, "adopt", None):
        stages.external("adopt", adopted)
    if aligned := getattr(config, "align", None):
        stages.external("align", aligned)
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
    return page


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
