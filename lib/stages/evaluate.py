"""Evaluate: base, instruct and aligned model on the same held-out stories and the same prompts.

In:   base, instruct, aligned (models), stories (split), tokenizer
Out:  story_loss   nats and bits per byte of each held-out story under each model: with nothing before it, and (asked_…)
                   behind its instruction, as instruct and align measure it
      samples      what each model writes for the 25 openings and for held-out instructions
      grades       of each sample, by lib/text/rubric.py: a stand-in that counts, named as such in every row
      metrics      one number per model and metric; the model `reference` is the held-out stories themselves, the most
                   that a model trained on such stories can be expected to reach
Rows may be tasks: then their instructions are answered, and the answers are compared with those that stand there
(answer_rouge_l) instead of graded as stories. Prompts are in the layout of `instruct`.
Sampling is at `temperature` and `top_p` with one seed for all models; every model gets the same ids, also the base
model, which was never shown an instruction. Metrics and their meaning: lib/model/metrics.py.
"""

import json
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
from lib.text.requests import COLUMNS, requests

STAGE = Stage("evaluate", 3)
REFERENCE = "reference"
ROOM = 0.75  # of a row: the most that a prompt may take


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
    layout = asked_layout(instruct)
    longest = min(json.loads(each.file("model.json").read_bytes())["shape"]["max_length"] for each in models.values())
    prompts = prompts_of(held, config.instructions, template, layout, longest)
    losses: list[dict[str, Any]] = []
    samples: list[dict[str, Any]] = []
    for number, (name, dataset) in enumerate(models.items()):
        draft.progress(
            f"{name}: {held.num_rows} stories scored, {len(prompts)} prompts answered", number, len(models) + 1
        )
        network = _load(name, dataset, template)
        losses += score(name, network, held, template, layout)
        samples += answer(name, network, prompts, template, layout, config)
    draft.progress("comparing with the training stories", len(models), len(models) + 1)
    reference = reference_samples(prompts)
    copied, known = compare(stories, [row["text"] for row in reference + samples])
    tasks = {prompt.number for prompt in prompts if prompt.kind == "instruction" and not prompt.summary}
    stories_told = [row for row in samples if row["kind"] == "opening" or row["prompt_no"] not in tasks]
    grades = [grade_of(row, known) for row in stories_told]
    rewards = concept_rewards(prompts, reference + samples) if config.reward == "auto" else [None] * len(copied)
    side = dict(zip(held["story_id"].to_pylist(), held["split"].to_pylist(), strict=True))
    metrics = loss_metrics(losses, side) + sample_metrics(reference + samples, prompts, copied, rewards)
    write(draft, losses, samples, grades, metrics)


def held_out(stories: Dataset, most: int, also: Sequence[pa.ChunkedArray] = ()) -> pa.Table:
    """The first `most` val and test stories by story_id, and those in `also`; UserError if there is no val story."""
    rows = pa.concat_tables(
        part.table(["story_id", "text", "split", *COLUMNS]).filter(pc.field("split") != "train")
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


def asked_layout(instruct: Dataset) -> str:
    """The layout in which the models are asked; natural if `instruct` knows none with prompts."""
    from lib.text.template import layout_of

    layout = json.loads(instruct.file("model.json").read_bytes())["layout"]
    return layout if layout_of(layout).has_prompt else "natural"


def prompts_of(held: pa.Table, most: int, template: Any, layout: str, longest: int) -> list[Prompt]:
    """The openings, and `most` instructions: what val rows are asked for by.

    Those that take more than ROOM of the shortest model's row leave too little of it, and are left out.
    """
    val = held.filter(pc.field("split") == "val").combine_chunks()
    asked = [column.to_pylist() for column in requests(val, layout)]
    instructions: list[Prompt] = []
    for row, ask, about in zip(val.to_pylist(), *asked, strict=True):
        if len(instructions) == most:
            break
        if ask is None or len(template.prefix(layout, ask, about or "")) > ROOM * longest:
            continue
        summary = None if row["instruction"] else row["summary"]
        number = len(instructions)
        instructions.append(Prompt("instruction", number, ask, summary, about or "", reference=row["text"]))
    return [Prompt("opening", number, text) for number, text in enumerate(OPENINGS)] + instructions


def score(name: str, network: Any, held: pa.Table, template: Any, layout: str) -> list[dict[str, Any]]:
    """One row per held-out story."""
    from lib.model.scoring import story_losses

    texts = held["text"].to_pylist()
    documents = [template.training("pretrain", "", text)[0] for text in texts]
    losses = story_losses(network, documents, [len(text.encode()) for text in texts])
    asked = score_asked(network, held, template, layout)
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


def score_asked(network: Any, held: pa.Table, template: Any, layout: str) -> dict[str, Any]:
    """The loss of each row that something asks for, given what the model is given before it writes."""
    from lib.model.inputs import lead_of
    from lib.model.scoring import story_losses

    lead = lead_of(template, layout)
    asked = [column.to_pylist() for column in requests(held, layout)]
    rows = zip(held["story_id"].to_pylist(), held["text"].to_pylist(), *asked, strict=True)
    rows = [(story_id, text, (ask, about or "")) for story_id, text, ask, about in rows if ask is not None]
    losses = story_losses(
        network,
        [lead + template.training(layout, ask, text, about)[0] for _, text, (ask, about) in rows],
        [len(text.encode()) for _, text, _ in rows],
        [len(template.prefix(layout, *ask)) for *_, ask in rows],
    )
    return {story_id: loss for (story_id, *_), loss in zip(rows, losses, strict=True)}


def answer(
    name: str, network: Any, prompts: Sequence[Prompt], template: Any, layout: str, config: EvaluateConfig
) -> list[dict[str, Any]]:
    """One sample per prompt; the text is what follows the prompt."""
    from lib.model.sampling import Sampler
    from lib.model.scoring import threads_for_sampling

    decode = template.tokenizer.decode
    prefixes = [_prefix(prompt, template, layout) for prompt in prompts]
    with threads_for_sampling(network):
        completions = Sampler(network).generate(
            prefixes,
            max_new=config.max_new,
            temperature=config.temperature,
            top_p=config.top_p,
            stop_ids=template.stop_ids(layout),
            seed=config.seed,
        )
    rows = []
    for prompt, prefix, done in zip(prompts, prefixes, completions, strict=True):
        story = template.cut(layout, done.ids)
        # An opening is decoded together with its story: alone, the story would lose the blank it starts with.
        begun = decode(prefix) if prompt.kind == "opening" else ""
        text = decode((prefix if begun else []) + story)[len(begun) :]
        row = {"model": name, "kind": prompt.kind, "prompt_no": prompt.number, "prompt": prompt.shown, "text": text}
        rows.append(row | {"ended": done.ended, "tokens": len(done.ids)})
    return rows


def _prefix(prompt: Prompt, template: Any, layout: str) -> list[int]:
    if prompt.kind == "opening":
        return template.completion_prefix(prompt.text)
    return template.prefix(layout, prompt.text, prompt.input)


def _load(name: str, dataset: Dataset, template: Any) -> Any:
    """The network; UserError if it was trained with another tokenizer, or another form of its layout."""
    from lib.model.inputs import require_form
    from lib.model.network import load_model

    if dataset.file("tokenizer.model").read_bytes() != template.tokenizer.model:
        raise UserError(
            f"{name} ({dataset.stage}/{dataset.name}) was trained with another tokenizer than the one given"
        )
    for file in ("model.json", "model.safetensors"):
        dataset.file(file)
    require_form(f"{name} ({dataset.stage}/{dataset.name})", json.loads(dataset.file("model.json").read_bytes()))
    return load_model(dataset.path)


def reference_samples(prompts: Sequence[Prompt]) -> list[dict[str, Any]]:
    """The held-out rows behind the instructions, as if a model had written them."""
    return [
        {
            "model": REFERENCE,
            "kind": "instruction",
            "prompt_no": prompt.number,
            "prompt": prompt.shown,
            "text": prompt.reference,
            "ended": True,
        }
        for prompt in prompts
        if prompt.reference
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
