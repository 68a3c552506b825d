"""What the flows share: how a stage becomes a task run, how a plan grows, what a finished flow shows."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.runtime import flow_run
from prefect.states import Cancelled, State

import tasks
from lib import store
from lib.errors import Stopped, UserError
from lib.overrides import with_overrides
from lib.presets import StoriesConfig
from lib.store import Config, Dataset
from lib.web import blocks

AnyConfig = TypeVar("AnyConfig", bound=StoriesConfig)


def name() -> str:
    """nightly, 10,000 stories: the UI's default names say nothing."""
    config = flow_run.parameters.get("config")
    return f"{flow_run.flow_name}, {source(config) if config else ''}"


def source(config: StoriesConfig) -> str:
    if config.ingest:
        return config.ingest.path
    return f"{config.selfinstruct.count:,} tasks" if config.selfinstruct else f"{config.generate.plan.total:,} stories"


def stoppable(body: Callable[..., Any]) -> Callable[..., Any]:
    """Where a stage stopped because it was asked to, as by its budget, the flow run ends Cancelled, not Failed."""

    @functools.wraps(body)
    def until_stopped(*args: Any, **kwargs: Any) -> Any:
        try:
            return body(*args, **kwargs)
        except Stopped as stop:
            return Cancelled(message=str(stop))

    return until_stopped


def as_task(stage: str, config: Config, **inputs: Dataset) -> Dataset:
    """Run a stage as its cached, retryable task."""
    made = tasks.task_of(stage)(config, **inputs)
    if isinstance(made, State):  # the task ended Cancelled
        raise Stopped(made.message)
    return made


def grown(config: AnyConfig, more: int | None) -> AnyConfig:
    """`config` with `more` stories than its plan has made so far, its extras among them; None leaves it as it is."""
    if more is None or config.ingest:
        return config
    asked = (generated_for(split) for split in store.finished("split"))
    made = [_plan(each.manifest["config"]) for each in asked if each and same_plan(each, config)]
    ours = _plan((config.selfinstruct or config.generate).model_dump())
    grows = {"count": max((each["count"] for each in made), default=ours["count"]) + more}
    if config.selfinstruct:
        return with_overrides(config, {"selfinstruct": grows})
    extras = [ours["extra"], *(each.get("extra", ()) for each in made)]
    grows["extra"] = max(extras, key=lambda each: sum(block["count"] for block in each))
    return with_overrides(config, {"generate": {"plan": grows}})


def _plan(config: dict[str, Any]) -> dict[str, Any]:
    """Where the count stands: in generate's plan, or beside selfinstruct's other fields."""
    return config.get("plan", config)


def generated_for(split: Dataset) -> Dataset | None:
    """The dataset of asked stories or tasks that a split goes back to. A plan counts once its stories are split: a run
    that was killed before then is the same run when it is started again."""
    dataset = split
    while dataset.stage not in ("generate", "ingest", "selfinstruct"):
        above = Dataset(**dataset.manifest["inputs"]["stories"])
        if store.find(above.stage, above.name) is None:
            return None
        dataset = above
    return dataset if dataset.stage != "ingest" else None


def require_same_plan(config: StoriesConfig) -> None:
    """UserError unless the stories that the views show were asked for with this plan: what is counted in one corpus is
    no ground for buying stories for another."""
    shown = store.newest("split")
    asked = generated_for(shown) if shown else None
    if asked is None or not same_plan(asked, config):
        raise UserError(
            f"the stories that coverage counts ({f'split/{shown.name}' if shown else 'none yet'}) were not asked for "
            "with this plan, expected the same preset and the same --generate flags as made them: type the command "
            "that made them once more (it comes from the cache), then --thin with its flags"
        )


def same_plan(dataset: Dataset, config: StoriesConfig) -> bool:
    """Whether the dataset was asked for with this config, however many stories it was, and whatever extra ones."""
    ours = (config.selfinstruct or config.generate).identity()
    asked = "selfinstruct" if config.selfinstruct else "generate"
    return dataset.stage == asked and _uncounted(dataset.manifest["identity"]) == _uncounted(ours)


def _uncounted(identity: dict[str, Any]) -> dict[str, Any]:
    if "plan" in identity:
        return identity | {"plan": identity["plan"] | {"count": 0, "extra": []}}
    return identity | {"count": 0}


def show_rows(made: dict[str, Dataset]) -> None:
    """One table of row counts per stage, those that came from the cache included."""
    table = []
    for what, dataset in made.items():
        manifest = dataset.manifest
        counts = manifest["counts"]
        dropped = ", ".join(f"{reason} {n:,}" for reason, n in manifest["drops"].items())
        row = {
            "stage": what,
            "rows in": counts.get("rows_in", ""),
            "rows out": counts.get("rows_out", manifest["rows"]),
        }
        table.append(row | {"dropped": dropped, "dataset": f"{dataset.stage}/{dataset.name}"})
    create_table_artifact(key="rows", table=table, description="Rows in and out of every stage")
    store.write_catalogue()


def show_report(report: Dataset) -> None:
    """The report as a markdown artifact."""
    create_markdown_artifact(key="report", markdown=blocks.inlined(report.path), description=str(report.path))
