"""Tokens, as a task."""

from lib.stages import tokens as stage
from lib.store import Dataset
from tasks.stage import perform, stage_task


@stage_task(stage)
def tokens(config: stage.TokensConfig, stories: Dataset, tokenizer: Dataset) -> Dataset:
    """Encode the stories into shards that a trainer maps into memory."""
    return perform(stage, config, stories=stories, tokenizer=tokenizer)
