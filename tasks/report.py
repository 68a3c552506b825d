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
    tokens: Dataset,
    natural: Dataset,
    pretrain: Dataset,
    instruct: Dataset,
    align: Dataset,
    evaluate: Dataset,
    export: Dataset,
) -> Dataset:
    """Draw the curves and write the page that tells what the chain has made."""
    made = {name: value for name, value in locals().items() if name != "config"}
    return perform(stage, config, in_child=True, **made)
