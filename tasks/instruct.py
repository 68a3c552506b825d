"""Instruct, as a task, in a process of its own."""

from lib.stages import instruct as stage
from lib.store import Dataset
from tasks.stage import perform, stage_task


@stage_task(stage)
def instruct(config: stage.InstructConfig, base: Dataset, tokens: Dataset, tokenizer: Dataset) -> Dataset:
    """Fine-tune the base model to follow "Write a story about …"."""
    return perform(stage, config, in_child=True, base=base, tokens=tokens, tokenizer=tokenizer)
