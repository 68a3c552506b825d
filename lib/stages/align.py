"""Align: make the stories that a reward likes likelier, and stop before the model cheats.

In:   model (instruct, or pretrain: a base model), stories (split), tokens (in the model's layout, for held-out bits per
      byte and the anchor), the tokenizer of all three
Out:  the model as before; rollouts (one row a story written), updates (one a gradient step), evals,
      scored (the val stories that evals are of)
Prompts are "Write " + the summaries of train rows; for a base model, which no request was shown to, the first words of
train stories; or those that `prompts` or `prompts_file` give. Held-out ones are those of val rows that are not among
them; one half chooses the model that is kept, and the facts reward_before and reward_after are of the other half.
"""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from lib.errors import UserError
from lib.model.aligning import Aligning
from lib.model.shape import PROJECTIONS
from lib.store import Dataset, Draft, Stage
from lib.text.sources import file_digest
from lib.text.template import Template, instruction, layout_of

STAGE = Stage("align", 3)
LORA_DROPOUT = 0.0  # roll-outs are drawn without dropout: with it, the gradient would be that of another policy


class AlignConfig(Aligning):
    """What is rewarded, how it is learned, and when to stop."""


def external(config: AlignConfig) -> dict[str, str]:
    """A digest of the file that prompts come from: part of the dataset's name."""
    return {config.prompts_file: file_digest(config.prompts_file)} if config.prompts_file else {}


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
    prompts, held_out, reported = prompts_of(stories, config, template, about["layout"], longest)
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
            prompts=prompts,
            held_out=held_out,
            reported=reported,
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

    return Batches(
        corpus=Corpus(tokens=tokens, split="train"),
        row_length=row_length,
        batch_size=config.anchor_rows,
        seed=config.seed,
        loss_on="story",
        lead=lead_of(template, tokens.manifest["config"]["layout"]),
    )


# ---- what to ask for


def prompts_of(
    stories: Dataset, config: AlignConfig, template: Template, layout: str, max_length: int
) -> tuple[dict[str, str | None], list[str], list[str]]:
    """Prompts for training, each with the train story it first comes from; held-out ones that choose; and that report.

    Each once, none in two of them. Those that leave no room for a story go.
    """
    asked: dict[str, dict[str, str | None]] = {"train": {}, "val": {}}
    for prompt, story_id, split in rows_of(stories, config, layout):
        if split in asked and prompt.strip():
            asked[split].setdefault(prompt, story_id)
    given = given_prompts(config)
    train = {prompt: asked["train"].get(prompt) for prompt in given} if given else asked["train"]

    def fits(prompt: str) -> bool:
        return len(template.prefix(layout, prompt)) <= max_length // 2

    train = {prompt: story_id for prompt, story_id in train.items() if fits(prompt)}
    val = [prompt for prompt in asked["val"] if prompt not in train and fits(prompt)]
    val = [val[i] for i in np.random.Generator(np.random.Philox(key=[config.seed, 1 << 32])).permutation(len(val))]
    for split, prompts, least in (("train", train, 1), ("val", val, 2)):
        if len(prompts) < least:
            raise UserError(
                f"{stories.stage}/{stories.name} gives {len(prompts)} usable prompts from its {split} rows, expected "
                f"at least {least} of at most {max_length // 2} tokens (of val rows: such as no train row gives)"
            )
    choosing = val[: min(config.heldout_prompts, -(-len(val) // 2))]
    return train, choosing, val[len(choosing) :][: config.report_prompts]


def given_prompts(config: AlignConfig) -> list[str]:
    """The prompts that the config gives. UserError for a file without one."""
    if not config.prompts_file:
        return list(config.prompts)
    lines = [line.strip() for line in Path(config.prompts_file).read_text(encoding="utf-8").splitlines()]
    if not (found := [line for line in lines if line]):
        raise UserError(f"{config.prompts_file} holds no prompt, expected one a line")
    return found


def rows_of(stories: Dataset, config: AlignConfig, layout: str) -> Any:
    """What each story was asked for with, its id and its side. For a layout without prompts: how the story begins."""
    column = "summary" if layout_of(layout).has_prompt else "text"
    opening = re.compile(rf"\S+(?:\s+\S+){{0,{config.opening_words - 1}}}")
    for part in stories.parts():
        rows = part.table(["story_id", column, "split"]).filter(pc.field(column).is_valid())
        for story_id, said, split in zip(*(each.to_pylist() for each in rows.columns), strict=True):
            if column == "summary":
                yield instruction(said) if said.strip() else "", story_id, split
            elif begun := opening.search(said):
                yield begun[0], story_id, split
