"""Evaluate, as a task, in a process of its own."""

from lib.stages import evaluate as stage
from lib.store import Dataset
from tasks.stage import perform, stage_task


@stage_task(stage)
def evaluate(
    config: stage.EvaluateConfig,
    base: Dataset,
    instruct: Dataset,
    aligned: Dataset,
    stories: Dataset,
    tokenizer: Dataset,
) -> Dataset:
    """Compare base, instruct and aligned on held-out stories and the same prompts."""
    return perform(
        stage,
        config,
        in_child=True,
        base=base,
        instruct=instruct,
        aligned=aligned,
        stories=stories,
        tokenizer=tokenizer,
    )
