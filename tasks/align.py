"""Align, as a task, in a process of its own."""

from lib.stages import align as stage
from lib.store import Dataset
from tasks.stage import perform, stage_task


@stage_task(stage)
def align(config: stage.AlignConfig, model: Dataset, stories: Dataset, tokens: Dataset, tokenizer: Dataset) -> Dataset:
    """Raise the reward of what the model writes, close to where it started."""
    return perform(stage, config, in_child=True, model=model, stories=stories, tokens=tokens, tokenizer=tokenizer)
