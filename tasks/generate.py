"""Generate, as a task."""

import os

from prefect.blocks.system import Secret

from lib.stages import generate as stage
from lib.store import Dataset
from lib.text.teacher import KEY_VARIABLE
from tasks.stage import perform, stage_task

SECRET = "openai-api-key"  # the block's name; the environment goes first


@stage_task(stage)
def generate(config: stage.GenerateConfig) -> Dataset:
    """Ask the teacher for the stories of the plan that were not answered yet."""
    return perform(stage, config, beside={"api_key": api_key})


def api_key() -> str:
    """The teacher's key, "" where there is none: the stage says what is missing and where to put it.

    Called where the key is used: it stays out of parameters, and out of the environment that children inherit.
    """
    if key := os.environ.get(KEY_VARIABLE):
        return key
    try:
        return str(Secret.load(SECRET).get())
    except ValueError:  # no such block
        return ""
