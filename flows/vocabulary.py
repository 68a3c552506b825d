"""Vocabulary: tokenizer and token shards, of the newest stories. Deployed weekly."""

from prefect import flow

from flows import run, wiring
from flows.stories import More
from lib.presets import VocabularyConfig, laptop_vocabulary
from lib.store import Dataset


@flow(name="vocabulary", flow_run_name=run.name)
@run.stoppable
def vocabulary(
    config: VocabularyConfig = laptop_vocabulary(),  # noqa: B008
    more: More = None,
) -> dict[str, Dataset]:
    """Train the tokenizer and encode the stories; stages that have nothing new to do come from the cache."""
    made = wiring.vocabulary(run.grown(config, more), run.as_task)
    run.show_rows(made)
    return made
