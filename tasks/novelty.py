"""Novelty, as a task."""

from lib.stages import novelty as stage
from lib.store import Dataset
from tasks.stage import perform, stage_task


@stage_task(stage)
def novelty(config: stage.NoveltyConfig, stories: Dataset) -> Dataset:
    """Keep the stories that were asked for in new words."""
    return perform(stage, config, stories=stories)
