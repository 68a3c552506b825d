"""Ingest, as a task."""

from lib.stages import ingest as stage
from lib.store import Dataset
from tasks.stage import perform, stage_task


@stage_task(stage)
def ingest(config: stage.IngestConfig) -> Dataset:
    """Read the user's own stories."""
    return perform(stage, config)
