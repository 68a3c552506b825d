"""Training: pretrain, instruct, align, on the newest stories. Deployed weekly."""

from prefect import flow

from flows import run, wiring
from flows.stories import More
from lib.presets import Chain, laptop
from lib.store import Dataset


@flow(name="training", flow_run_name=run.name)
@run.stoppable
def training(config: Chain = laptop(), more: More = None) -> dict[str, Dataset]:  # noqa: B008
    """Train the base model, teach it to follow instructions, and align it."""
    made = wiring.training(run.grown(config, more), run.as_task)
    run.show_rows(made)
    return made
