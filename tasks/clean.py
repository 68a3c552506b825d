"""Clean, as a task."""

from lib.stages import clean as stage
from lib.store import Dataset
from tasks.stage import perform, stage_task


@stage_task(stage)
def clean(config: stage.CleanConfig, stories: Dataset) -> Dataset:
    """Repair the stories, and drop those a child could not read to the end."""
    return perform(stage, config, stories=stories)
