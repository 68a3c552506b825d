"""Export, as a task, in a process of its own."""

from lib.stages import export as stage
from lib.store import Dataset
from tasks.stage import perform, stage_task


@stage_task(stage)
def export(config: stage.ExportConfig, model: Dataset, tokenizer: Dataset, stories: Dataset) -> Dataset:
    """Write the model as other programs read it."""
    return perform(stage, config, in_child=True, model=model, tokenizer=tokenizer, stories=stories)
