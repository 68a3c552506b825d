"""Pretrain, as a task, in a process of its own."""

from lib.stages import pretrain as stage
from lib.store import Dataset
from tasks.stage import perform, stage_task


@stage_task(stage)
def pretrain(config: stage.PretrainConfig, tokens: Dataset, tokenizer: Dataset) -> Dataset:
    """Train the base model."""
    return perform(stage, config, in_child=True, tokens=tokens, tokenizer=tokenizer)
