"""Self-instruct, as a task."""

import os

from lib.stages import selfinstruct as stage
from lib.store import Dataset
from lib.text.teacher import KEY_VARIABLE
from tasks.generate import load_key
from tasks.stage import perform, stage_task


@stage_task(stage)
def selfinstruct(config: stage.SelfinstructConfig) -> Dataset:
    """Ask the teacher for tasks like the seed tasks, with their answers."""
    if config.teacher == "openai" and not os.environ.get(KEY_VARIABLE):
        load_key()
    return perform(stage, config)
