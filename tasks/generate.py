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
    if config.teacher == "openai" and not os.environ.get(KEY_VARIABLE):
        load_key()
    return perform(stage, config)


def load_key() -> None:
    """Put the key of the Secret block, if there is one, where the client looks for it: never into a parameter."""
    try:
        secret = Secret.load(SECRET)
    except ValueError:
        return  # no such block: the stage says what is missing and where to put it
    os.environ[KEY_VARIABLE] = secret.get()
