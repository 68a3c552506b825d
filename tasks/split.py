"""Split, as a task."""

from lib.stages import split as stage
from lib.store import Dataset
from tasks.stage import perform, stage_task


@stage_task(stage)
def split(config: stage.SplitConfig, stories: Dataset) -> Dataset:
    """Put every cluster on one side: train, val or test."""
    return perform(stage, config, stories=stories)
