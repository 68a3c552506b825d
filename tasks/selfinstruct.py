"""Self-instruct, as a task."""

from lib.stages import selfinstruct as stage
from lib.store import Dataset
from tasks.generate import api_key
from tasks.stage import perform, stage_task


@stage_task(stage)
def selfinstruct(config: stage.SelfinstructConfig) -> Dataset:
    """Ask the teacher for tasks like the seed tasks, with their answers."""
    return perform(stage, config, beside={"api_key": api_key})
