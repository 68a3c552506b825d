"""Report, as a task, in a process of its own."""

from lib.stages import report as stage
from lib.store import Dataset
from tasks.stage import perform, stage_task


@stage_task(stage)
def report(
    config: stage.ReportConfig,
    raw: Dataset,
    clean: Dataset,
    dedup: Dataset,
    split: Dataset,
    tokenizer: Dataset,
    instructions: Dataset,
    instruct: Dataset,
    align: Dataset,
    evaluate: Dataset,
    export: Dataset,
    novelty: Dataset | None = None,
    tokens: Dataset | None = None,
    pretrain: Dataset | None = None,
    adopt: Dataset | None = None,
) -> Dataset:
    """Draw the curves and write the page that tells what the chain has made."""
    made = {name: value for name, value in locals().items() if isinstance(value, Dataset)}
    return perform(stage, config, in_child=True, **made)
