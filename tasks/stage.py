"""What every stage's task shares: its cache key, its retries, and what Prefect shows of it.

The cached result lives inside the dataset's folder: delete the folder, and both the store and Prefect forget it.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

from prefect import Task, task
from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact
from prefect.cache_policies import CachePolicy
from prefect.context import TaskRunContext
from prefect.logging import get_run_logger
from prefect.runtime import task_run
from prefect.states import Cancelled, State

from lib import launch, stages, store
from lib.errors import Stopped, TransientError, UserError
from lib.store import Config, Dataset

RESULT = "_prefect-result"
LINE_S, ARTIFACT_S = 5.0, 5.0  # a log line costs about 1 ms and a database row; a progress update about 50 ms


@dataclass(kw_only=True)
class ByRequest(CachePolicy):
    """One key per dataset, and never a hit whose files are not what the manifest says.

    Not TASK_SOURCE: it hashes the task's own few lines and would miss every change in lib/; a stage's version does it.
    """

    stage: str

    def compute_key(
        self, task_ctx: TaskRunContext, inputs: dict[str, Any], flow_parameters: dict[str, Any], **kwargs: Any
    ) -> str | None:
        datasets = {name: value for name, value in inputs.items() if isinstance(value, Dataset)}
        try:
            name = stages.request_name(self.stage, inputs["config"], datasets)
        except UserError:
            return None  # the body meets the same error, and raises it
        if not usable(self.stage, name):
            (store.root() / self.stage / name / RESULT).unlink(missing_ok=True)
        return f"{self.stage}/{name}/{RESULT}"


def usable(stage: str, name: str) -> bool:
    """Whether the dataset is there and whole; marks it as used. `build` deletes a damaged one, under the lock."""
    try:
        found = store.find(stage, name)
    except store.CorruptDataset:
        return False
    if found:
        store.mark_used(found)
    return found is not None


def may_pass(_task: Task, _run: Any, state: Any) -> bool:
    """Retry only what may go away by itself; an error that will not change fails at once."""
    return isinstance(state.result(raise_on_failure=False), TransientError)


def run_name() -> str:
    """tokens-natural says more in the UI than a random name."""
    layout = getattr(task_run.parameters["config"], "layout", "")
    return "-".join(filter(None, [task_run.task_name, layout]))


def stage_task(stage: ModuleType, **options: Any) -> Callable[[Callable[..., Dataset]], Task]:
    """`@task` with the house's caching and retries."""
    return task(
        name=stage.STAGE.name,
        task_run_name=run_name,
        cache_policy=ByRequest(stage=stage.STAGE.name),
        persist_result=True,
        result_serializer="json",
        retries=2,
        retry_delay_seconds=[5, 30],
        retry_condition_fn=may_pass,
        **options,
    )


def perform(
    stage: ModuleType,
    config: Config,
    *,
    in_child: bool = False,
    beside: Mapping[str, Any] | None = None,
    **inputs: Dataset,
) -> Dataset | State:
    """Build the stage's dataset, saying how it goes, and show its counts. A stop that was asked for is no failure.

    `beside` goes to the stage as it is, in this process alone, and is part of no name.
    """
    name = stage.STAGE.name
    do = launch.build_in_child if in_child else partial(stages.build, beside=beside)
    try:
        dataset = do(name, config, inputs, Shown(name))
    except Stopped as stop:
        return Cancelled(message=str(stop))
    store.write_catalogue()
    show_counts(dataset)
    return dataset


class Shown:
    """Progress as a log line every few seconds and, for long work, a bar in the UI."""

    def __init__(self, stage: str) -> None:
        self.stage, self.log, self.bar = stage, get_run_logger(), None
        self.line_at = self.bar_at = 0.0
        self.started = time.monotonic()

    def __call__(self, text: str, done: float | None = None, total: float | None = None) -> None:
        now = time.monotonic()
        last = total is not None and done == total
        if now - self.line_at >= LINE_S or last or total is None:
            self.line_at = now
            self.log.info(text)
        if total and (now - self.bar_at >= ARTIFACT_S or (last and self.bar)) and now - self.started > ARTIFACT_S:
            self.bar_at = now
            self._move_bar(100 * done / total, text)

    def _move_bar(self, percent: float, text: str) -> None:
        if self.bar is None:
            self.bar = create_progress_artifact(percent, key=f"{self.stage}-progress", description=text)
        else:
            update_progress_artifact(self.bar, percent, description=text)


def show_counts(dataset: Dataset) -> None:
    """A table of the stage's row counts in the UI, and one log line."""
    manifest = dataset.manifest
    rows = manifest["counts"] | {f"dropped: {reason}": n for reason, n in manifest["drops"].items()} | manifest["facts"]
    table = [{"what": what, "value": str(value)} for what, value in rows.items()]
    create_table_artifact(key=f"{dataset.stage}-counts", table=table, description=f"{dataset.stage}/{dataset.name}")
    told = ", ".join(f"{what} {n:,}" for what, n in (manifest["counts"] | manifest["drops"]).items())
    size = f"{manifest['bytes'] / 1e6:.1f} MB in {manifest['seconds']:.1f} s"
    get_run_logger().info(" · ".join(filter(None, [told, size])))
