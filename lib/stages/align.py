"""Align: make the stories that a reward likes likelier, and stop before the model cheats.

In:   model (instruct, or pretrain: a base model), stories (split), tokens (in the model's layout, for held-out bits per
      byte and the anchor), the tokenizer of all three
Out:  the model as before; rollouts (one row a story written), updates (one a gradient step), evals,
      scored (the val stories that evals are of)
Prompts are what train rows are asked for with in the model's layout ("Write " + the summary, in natural); for a base
model, which no request was shown to, the first words of train stories; or those that `prompts` or `prompts_file` give.
Held-out ones are those of val rows that are not among them; one half chooses the model that is kept, and the facts
reward_before and reward_after are of the other half.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lib.errors import UserError
from lib.model.aligning import Aligning
from lib.model.shape import PROJECTIONS
from lib.store import Dataset, Draft, Stage
from lib.text.requests import COLUMNS, instruction, requests
from lib.text.template import Template, layout_of

STAGE = Stage("align", 4)
LORA_DROPOUT = 0.0  # roll-outs are drawn without dropout: with it, the gradient would be that of another policy


class AlignConfig(Aligning):
    """What is rewarded, how it is learned, and when to stop."""


def external(config: AlignConfig) -> dict[str, str]:
    """A digest of the file that prompts come from: part of the dataset's name. UserError for one without prompts."""
    if not config.prompts_file:
        return {}
    given_prompts(config)
    return {config.prompts_file: hashlib.sha256(Path(config.prompts_file).read_bytes()).hexdigest()}


def align(
    draft: Draft, config: AlignConfig, *, model: Dataset, stories: Dataset, tokens: Dataset, tokenizer: Dataset
) -> None:
    """Align `model`. UserError where inputs do not belong together or nothing can be asked, Diverged on a bad loss."""
    import torch

    from lib.model import alignment, checkpoint, compute, heldout, lora
    from lib.model.ascent import Climber
    from lib.model.inputs import require_same
    from lib.model.network import load_model
    from lib.model.rewards import Rewards
    from lib.model.rollouts import Writer
    from lib.text.tokenizer import Tokenizer

    require_same(model=model, tokenizer=tokenizer)
    about = about_of(model, tokens)
    template = Template(Tokenizer.load(tokenizer.file("tokenizer.model")))
    if config.threads:
        torch.set_num_threads(config.threads)
    device = compute.pick_device(config.device)
    policy, reference = load_model(model.path, device), load_model(model.path, device).requires_grad_(False)
    if config.method == "lora":
        torch.manual_seed(config.seed)
        lora.add_lora(policy, **lora_settings(config))
    longest = policy.shape.max_length
    prompts = prompts_of(stories, config, template, about["layout"], longest)
    dtype = compute.pick_dtype(config.precision, device)
    anchor = train_stories(tokens, template, config, longest) if config.anchor_coef else None
    alignment.train(
        alignment.Run(
            draft=draft,
            config=config,
            climber=Climber(config, policy, reference, dtype, anchor),
            writer=Writer(template, about["layout"], config.max_new, config.temperature),
            rewards=Rewards(
                config.rewards,
                concept=config.concept,
                judge=config.judge,
                progress=lambda text, *_: draft.progress(f"judge: {text}"),
            ),
            prompts={prompt: each.story_id for prompt, each in prompts.train.items()},
            held_out=prompts.choosing,
            reported=prompts.reported,
            wanted=prompts.wanted,
            val=heldout.val_stories(tokens, template, config.eval_stories, longest),
        )
    )
    if config.method == "lora":
        lora.publish_adapter(draft, policy, **lora_settings(config))
        lora.merge(policy)
    checkpoint.publish(draft, model=policy, pieces=tokenizer.file("tokenizer.model"), **about)


def lora_settings(config: AlignConfig) -> dict[str, Any]:
    return {"rank": config.rank, "alpha": config.alpha, "dropout": LORA_DROPOUT, "targets": PROJECTIONS}


def about_of(model: Dataset, tokens: Dataset) -> dict[str, str]:
    """What goes into model.json beside the shape. UserError where the tokens are in another layout than the model."""
    model.file("model.safetensors")
    about = json.loads(model.file("model.json").read_bytes())
    if (layout := tokens.manifest["config"]["layout"]) != about["layout"]:
        raise UserError(
            f"{model.stage}/{model.name} was trained in the layout {about['layout']!r}, but tokens/{tokens.name} "
            f"are in {layout!r}; give the tokens that the model was trained on"
        )
    return {key: about[key] for key in ("layout", "template", "tokenizer")} | {"stage": STAGE.name}


def train_stories(tokens: Dataset, template: Template, config: AlignConfig, row_length: int) -> Any:
    """The anchor's batches, by step."""
    from lib.model.batches import Batches, Corpus
    from lib.model.inputs import lead_of

    layout = tokens.manifest["config"]["layout"]
    return Batches(
        corpus=Corpus(tokens=tokens, split="train"),
        row_length=row_length,
        batch_size=config.anchor_rows,
        seed=config.seed,
        loss_on="story",
        bos_id=template.tokenizer.bos_id,
        lead=lead_of(template, layout),
        packed=layout_of(layout).packed,
    )


# ---- what to ask for


@dataclass(frozen=True)
class Asked:
    """A prompt and where it comes from."""

    prompt: str
    story_id: str | None
    split: str
    wanted: str  # the same in few words, for rewards: of a story its summary, without what every prompt says


@dataclass(frozen=True)
class Prompts:
    train: dict[str, Asked]
    choosing: list[str]  # held out: they choose which model is kept
    reported: list[str]  # held out too, and asked only before and after
    wanted: dict[str, str]


def prompts_of(stories: Dataset, config: AlignConfig, template: Template, layout: str, max_length: int) -> Prompts:
    """What to ask for: each prompt once, with the first story it comes from, and none on two sides.

    Those that leave no room for a story go.
    """
    asked: dict[str, dict[str, Asked]] = {"train": {}, "val": {}}
    for each in rows_of(stories, config, layout):
        if each.split in asked:
            asked[each.split].setdefault(each.prompt, each)
    given = given_prompts(config)
    train = asked["train"]
    if given:
        train = {prompt: train.get(prompt) or Asked(prompt, None, "train", prompt) for prompt in given}

    def fits(prompt: str) -> bool:
        return len(template.prefix(layout, prompt)) <= max_length // 2

    train = {prompt: each for prompt, each in train.items() if fits(prompt)}
    val = [prompt for prompt in asked["val"] if prompt not in train and fits(prompt)]
    val = [val[i] for i in np.random.Generator(np.random.Philox(key=[config.seed, 1 << 32])).permutation(len(val))]
    for split, prompts, least in (("train", train, 1), ("val", val, 2)):
        if len(prompts) < least:
            raise UserError(
                f"{stories.stage}/{stories.name} gives {len(prompts)} usable prompts from its {split} rows, expected "
                f"at least {least} of at most {max_length // 2} tokens (of val rows: such as no train row gives)"
            )
    choosing = val[: min(config.heldout_prompts, -(-len(val) // 2))]
    wanted = {prompt: each.wanted for prompt, each in (asked["val"] | train).items()}
    return Prompts(train, choosing, val[len(choosing) :][: config.report_prompts], wanted)


def given_prompts(config: AlignConfig) -> list[str]:
    """The prompts that the config gives. UserError for a file that cannot be read or holds none."""
    if not config.prompts_file:
        return list(config.prompts)
    expected = "expected a text file in UTF-8, one prompt a line"
    try:
        text = Path(config.prompts_file).read_text(encoding="utf-8")
    except OSError as error:
        told = f"found align.prompts_file {config.prompts_file}, which cannot be read ({error.strerror}, looked in "
        raise UserError(f"{told}{Path.cwd()}), {expected}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        told = f"{config.prompts_file}, line {line}: found the byte {error.object[error.start]:#x}, {expected}"
        raise UserError(f"{told}; save it anew in UTF-8") from error
    lines = [line.strip() for line in text.splitlines()]
    if not (found := [line for line in lines if line]):
        raise UserError(f"{config.prompts_file} holds no prompt, expected one a line")
    return found


def rows_of(stories: Dataset, config: AlignConfig, layout: str) -> Iterator[Asked]:
    """What each story is asked for with. For a layout without prompts: how the story begins.

    Tasks that come with an input are left out: a prompt is one text.
    """
    opening = re.compile(rf"\S+(?:\s+\S+){{0,{config.opening_words - 1}}}")
    for part in stories.parts():
        rows = part.table(["story_id", "text", "split", *COLUMNS])
        prompts, inputs = requests(rows, layout)
        for row, prompt, about in zip(rows.to_pylist(), prompts.to_pylist(), inputs.to_pylist(), strict=True):
            if not layout_of(layout).has_prompt:
                begun = opening.search(row["text"])
                prompt, about = begun[0] if begun else None, None
            if prompt and not about:
                wanted = instruction(row["summary"]) if row["summary"] and not row["instruction"] else prompt
                yield Asked(prompt, row["story_id"], row["split"], wanted)
