"""Tokenizer, as a task."""

from lib.stages import tokenizer as stage
from lib.store import Dataset
from tasks.stage import perform, stage_task


@stage_task(stage)
def tokenizer(config: stage.TokenizerConfig, stories: Dataset) -> Dataset:
    """Train the vocabulary on the train stories."""
    return perform(stage, config, stories=stories)
