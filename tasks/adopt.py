"""Adopt, as a task, in a process of its own."""

from lib.stages import adopt as stage
from lib.store import Dataset
from tasks.stage import perform, stage_task


@stage_task(stage)
def adopt(config: stage.AdoptConfig) -> Dataset:
    """Bring a public model into the chain."""
    return perform(stage, config, in_child=True)
