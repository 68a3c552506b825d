"""Evaluate: base, instruct and aligned model on the same held-out stories and the same prompts.

In:   base, instruct, aligned (models), stories (split), tokenizer
Out:  story_loss   nats and bits per byte of each held-out story under each model: with nothing before it, and (asked_…)
                   behind its instruction, as instruct and align measure it
      samples      what each model writes for the 25 openings and for held-out instructions
      grades       of each sample, by lib/text/rubric.py: a stand-in that counts, named as such in every row
      metrics      one number per model and metric; the model `reference` is the held-out stories themselves, the most
                   that a model trained on such stories can be expected to reach
Sampling is at `temperature` and `top_p` with one seed for all models; every model gets the same ids, also the base
model, which was never shown an instruction. Metrics and their meaning: lib/model/metrics.py.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from lib.errors import UserError
from lib.model.metrics import METRICS, Prompt, concept_rewards, loss_metrics, sample_metrics
from lib.store import Config, Dataset, Draft, Stage
from lib.store.schemas import HELD_OUT
from lib.text.openings import OPENINGS

STAGE = Stage("evaluate", 2)
REFERENCE = "reference"


class EvaluateConfig(Config):
    seed: int = Field(17, ge=0, description="of the samples; one for all models")
    loss_stories: int = Field(
        400, ge=1, description="held-out stories scored per split, the first by story_id; those of the evals always are"
    )
    instructions: int = Field(
        32, ge=1, description="held-out instructions answered, of the first val stories by story_id"
    )
    max_new: int = Field(400, ge=8, description="most tokens of a sample; the model's max_length bounds it too")
    temperature: float = Field(0.8, ge=0, le=2, description="of the samples; 0 is greedy")
    top_p: float = Field(0.95, gt=0, le=1, description="of the samples")
    reward: Literal["auto", "off"] = Field("auto", description="off: leave out reward_concept")


def evaluate(
    draft: Draft,
    config: EvaluateConfig,
    *,
    base: Dataset,
    instruct: Dataset,
    aligned: Dataset,
    stories: Dataset,
    tokenizer: Dataset,
) -> None:
    """Score, sample, grade, measure."""
    from lib.text.template import Template
    from lib.text.tokenizer import Tokenizer

    template = Template(Tokenizer.load(tokenizer.file("tokenizer.model")))
    models = {"base": base, "instruct": instruct, "aligned": aligned}
    held = held_out(
        stories, config.loss_stories, [model.table(table="scored")["story_id"] for model in models.values()]
    )
    prompts = prompts_of(held, config.instructions)
    losses: list[dict[str, Any]] = []
    samples: list[dict[str, Any]] = []
    for number, (name, dataset) in enumerate(models.items()):
        draft.progress(
            f"{name}: {held.num_rows} stories scored, {len(prompts)} prompts answered", number, len(models) + 1
        )
        network = _load(name, dataset, template)
        losses += score(name, network, held, template)
        samples += answer(name, network, prompts, template, config)
    draft.progress("comparing with the training stories", len(models), len(models) + 1)
    reference = reference_samples(held, prompts)
    copied, known = compare(stories, [row["text"] for row in reference + samples])
    grades = [grade_of(row, known) for row in samples]
    rewards = concept_rewards(prompts, reference + samples) if config.reward == "auto" else [None] * len(copied)
    side = dict(zip(held["story_id"].to_pylist(), held["split"].to_pylist(), strict=True))
    metrics = loss_metrics(losses, side) + sample_metrics(reference + samples, prompts, copied, rewards)
    write(draft, losses, samples, grades, metrics)


def held_out(stories: Dataset, most: int, also: Sequence[pa.ChunkedArray] = ()) -> pa.Table:
    """The first `most` val and test stories by story_id, and those in `also`; UserError if there is no val story."""
    rows = pa.concat_tables(
        part.table(["story_id", "text", "summary", "split"]).filter(pc.field("split") != "train")
        for part in stories.parts()
    ).sort_by("story_id")
    wanted = pa.array(sorted({story_id for each in also for story_id in each.to_pylist()}), pa.string())
    sides = []
    for side in HELD_OUT:
        table = rows.filter(pc.field("split") == side)
        first = pa.array(np.arange(len(table)) < most)
        sides.append(table.filter(pc.or_(first, pc.is_in(table["story_id"], wanted))))
    if not sides[0].num_rows:
        raise UserError(
            f"{stories.stage}/{stories.name} has no val story; give more stories, or a larger split.val share"
        )
    return pa.concat_tables(sides)


def prompts_of(held: pa.Table, most: int) -> list[Prompt]:
    """The openings, and `most` instructions from summaries of val stories."""
    from lib.text.template import instruction

    val = held.filter((pc.field("split") == "val") & pc.field("summary").is_valid())
    summaries = val["summary"].slice(0, most).to_pylist()
    openings = [Prompt("opening", number, text) for number, text in enumerate(OPENINGS)]
    return openings + [Prompt("instruction", n, instruction(text), text) for n, text in enumerate(summaries)]


def score(name: str, network: Any, held: pa.Table, template: Any) -> list[dict[str, Any]]:
    """One row per held-out story."""
    from lib.model.scoring import story_losses

    texts = held["text"].to_pylist()
    documents = [template.training("pretrain", "", text)[0] for text in texts]
    losses = story_losses(network, documents, [len(text.encode()) for text in texts])
    asked = score_asked(network, held, template)
    return [
        {
            "story_id": story_id,
            "model": name,
            "nats": loss.nats,
            "tokens": loss.tokens,
            "bytes": loss.bytes,
            "bits_per_byte": loss.bits_per_byte,
            "asked_nats": asked[story_id].nats if story_id in asked else None,
            "asked_tokens": asked[story_id].tokens if story_id in asked else None,
        }
        for story_id, loss in zip(held["story_id"].to_pylist(), losses, strict=True)
    ]


def score_asked(network: Any, held: pa.Table, template: Any) -> dict[str, Any]:
    """The loss of each story that has a summary, given the instruction that asks for it."""
    from lib.model.inputs import lead_of
    from lib.model.scoring import story_losses
    from lib.text.template import instruction

    lead = lead_of(template, "natural")
    rows = [row for row in held.select(["story_id", "text", "summary"]).to_pylist() if (row["summary"] or "").strip()]
    sequences = [template.training("natural", instruction(row["summary"]), row["text"]) for row in rows]
    losses = story_losses(
        network,
        [lead + ids for ids, _ in sequences],
        [len(row["text"].encode()) for row in rows],
        [len(lead) + num_prompt + 1 for _, num_prompt in sequences],  # the BOS behind the prompt is given, too
    )
    return {row["story_id"]: loss for row, loss in zip(rows, losses, strict=True)}


def answer(
    name: str, network: Any, prompts: Sequence[Prompt], template: Any, config: EvaluateConfig
) -> list[dict[str, Any]]:
    """One sample per prompt; the text is what follows the prompt."""
    from lib.model.sampling import Sampler
    from lib.model.scoring import threads_for_sampling

    natural, decode = template.stop_ids("natural"), template.tokenizer.decode
    prefixes = [_prefix(prompt, template) for prompt in prompts]
    with threads_for_sampling(network):
        completions = Sampler(network).generate(
            prefixes,
            max_new=config.max_new,
            temperature=config.temperature,
            top_p=config.top_p,
            stop_ids=natural,
            seed=config.seed,
        )
    rows = []
    for prompt, prefix, done in zip(prompts, prefixes, completions, strict=True):
        story = [token for token in done.ids if token not in natural]
        # An opening is decoded together with its story: alone, the story would lose the blank it starts with.
        begun = decode(prefix) if prompt.kind == "opening" else ""
        text = decode((prefix if begun else []) + story)[len(begun) :]
        row = {"model": name, "kind": prompt.kind, "prompt_no": prompt.number, "prompt": prompt.text, "text": text}
        rows.append(row | {"ended": done.ended, "tokens": len(done.ids)})
    return rows


def _prefix(prompt: Prompt, template: Any) -> list[int]:
    return (
        template.completion_prefix(prompt.text) if prompt.kind == "opening" else template.prefix("natural", prompt.text)
    )


def _load(name: str, dataset: Dataset, template: Any) -> Any:
    """The network; UserError if it was trained with another tokenizer."""
    from lib.model.network import load_model

    if dataset.file("tokenizer.model").read_bytes() != template.tokenizer.model:
        raise UserError(
            f"{name} ({dataset.stage}/{dataset.name}) was trained with another tokenizer than the one given"
        )
    for file in ("model.json", "model.safetensors"):
        dataset.file(file)
    return load_model(dataset.path)


def reference_samples(held: pa.Table, prompts: Sequence[Prompt]) -> list[dict[str, Any]]:
    """The held-out stories behind the instructions, as if a model had written them."""
    asked = {prompt.summary: prompt for prompt in prompts if prompt.summary}
    rows = held.filter(pc.field("split") == "val").to_pylist()
    stories = {row["summary"]: row["text"] for row in reversed(rows) if row["summary"] in asked}
    return [
        {
            "model": REFERENCE,
            "kind": "instruction",
            "prompt_no": asked[summary].number,
            "prompt": asked[summary].text,
            "text": text,
            "ended": True,
        }
        for summary, text in sorted(stories.items(), key=lambda item: asked[item[0]].number)
    ]


def compare(stories: Dataset, texts: list[str]) -> tuple[list[float | None], frozenset[str]]:
    """Per text the share of its shingles that training stories hold; and every word of theirs. One part at a time."""
    from lib.model.scoring import Shelf

    shelf = Shelf(texts)
    for part in stories.parts():
        shelf.compare(part.table(["text", "split"]).filter(pc.field("split") == "train")["text"])
    return shelf.copied(), frozenset(shelf.known)


def grade_of(row: dict[str, Any], known: frozenset[str]) -> dict[str, Any]:
    """The rubric's marks for one sample."""
    from lib.text import rubric

    marks = rubric.grade(row["prompt"], row["text"], ended=row["ended"], known=known)
    return {key: row[key] for key in ("model", "kind", "prompt_no")} | {"judge": rubric.JUDGE} | vars(marks)


def write(draft: Draft, losses: list[dict], samples: list[dict], grades: list[dict], metrics: list[dict]) -> None:
    """The four tables; the headline numbers as facts."""
    from lib.store.schemas import TABLES

    for name, rows in (("story_loss", losses), ("samples", samples), ("grades", grades), ("metrics", metrics)):
        draft.write_table(f"{name}.parquet", pa.Table.from_pylist(rows, schema=TABLES["evaluate", name]))
    headline = ("bits_per_byte", "followed", "reward_concept")
    facts: dict[str, dict[str, float]] = {metric: {} for metric in headline}
    for row in metrics:
        if row["metric"] in headline:
            facts[row["metric"]][row["model"]] = round(row["value"], 6)
    draft.fact(**facts, metrics=METRICS)
    draft.count(story_losses=len(losses), samples=len(samples))
