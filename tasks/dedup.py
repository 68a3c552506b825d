"""Dedup, as a task."""

from lib.stages import dedup as stage
from lib.store import Dataset
from tasks.stage import perform, stage_task


@stage_task(stage)
def dedup(config: stage.DedupConfig, stories: Dataset) -> Dataset:
    """Keep one story of each cluster of duplicates."""
    return perform(stage, config, stories=stories)
