"""Stories: generate or ingest, clean, dedup, split. Deployed to run every night with `more` new stories."""

from typing import Annotated

from prefect import flow
from pydantic import Field

from flows import run, wiring
from lib.presets import StoriesConfig, laptop_stories
from lib.store import Dataset

More = Annotated[
    int | None,
    Field(ge=0, description="stories to add to those this plan has made so far; empty: as config says"),
]


@flow(name="stories", flow_run_name=run.name)
@run.stoppable
def stories(config: StoriesConfig = laptop_stories(), more: More = None) -> dict[str, Dataset]:  # noqa: B008
    """Make or read stories, clean them, drop duplicates, and put each on one side of the split."""
    made = wiring.stories(run.grown(config, more), run.as_task)
    run.show_rows(made)
    return made
