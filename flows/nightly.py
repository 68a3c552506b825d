"""Nightly: the whole chain, from stories to the report. This is what `storymill run` runs."""

from prefect import flow

from flows import run, wiring
from flows.stories import More
from lib.presets import Chain, laptop
from lib.store import Dataset


@flow(name="nightly", flow_run_name=run.name)
@run.stoppable
def nightly(config: Chain = laptop(), more: More = None) -> dict[str, Dataset]:  # noqa: B008
    """Stories, tokenizer, three models, their comparison, the exported model and the report."""
    made = wiring.everything(run.grown(config, more), run.as_task)
    run.show_rows(made)
    run.show_report(made["report"])
    return made
