"""Align: make the stories that a reward likes likelier, and stop before the model cheats.

In:   model (instruct), stories (split: the summaries are the prompts), tokens (natural, for held-out bits per byte),
      the tokenizer of all three
Out:  the model as before; rollouts (one row a story written), updates (one a gradient step), evals,
      scored (the val stories that evals are of)
Prompts are "Write " + the summaries of train rows; held-out ones those of val rows that no train row has. The facts
reward_before and reward_after are of the held-out prompts, with the same random numbers, before and of the kept model.
"""

import json
from typing import Any

import numpy as np
import pyarrow.compute as pc

from lib.errors import UserError
from lib.model.aligning import Aligning
from lib.model.shape import PROJECTIONS
from lib.store import Dataset, Draft, Stage
from lib.text.template import Template, instruction

STAGE = Stage("align", 3)
LORA_DROPOUT = 0.0  # roll-outs are drawn without dropout: with it, the gradient would be that of another policy


class AlignConfig(Aligning):
    """What is rewarded, how it is learned, and when to stop."""


def align(
    draft: Draft, config: AlignConfig, *, model: Dataset, stories: Dataset, tokens: Dataset, tokenizer: Dataset
) -> None:
    """Align `model`. UserError where inputs do not belong together or nothing can be asked, Diverged on a bad loss."""
    import torch

    from lib.model import alignment, checkpoint, compute, heldout, lora
    from lib.model.inputs import require_same
    from lib.model.network import load_model
    from lib.model.rewards import Rewards
    from lib.model.rollouts import Writer
    from lib.text.tokenizer import Tokenizer

    require_same(model=model, tokenizer=tokenizer)
    about = about_of(model)
    template = Template(Tokenizer.load(tokenizer.file("tokenizer.model")))
    if config.threads:
        torch.set_num_threads(config.threads)
    device = compute.pick_device(config.device)
    policy, reference = load_model(model.path, device), load_model(model.path, device).requires_grad_(False)
    if config.method == "lora":
        torch.manual_seed(config.seed)
        lora.add_lora(policy, **lora_settings(config))
    prompts, held_out = prompts_of(stories, config, template, policy.shape.max_length)
    alignment.train(
        alignment.Run(
            draft=draft,
            config=config,
            policy=policy,
            reference=reference,
            writer=Writer(template, config.max_new, config.temperature),
            rewards=Rewards(config.rewards, concept=config.concept),
            prompts=prompts,
            held_out=held_out,
            val=heldout.val_stories(tokens, template, config.eval_stories, policy.shape.max_length),
            dtype=compute.pick_dtype(config.precision, device),
        )
    )
    if config.method == "lora":
        lora.publish_adapter(draft, policy, **lora_settings(config))
        lora.merge(policy)
    checkpoint.publish(draft, model=policy, pieces=tokenizer.file("tokenizer.model"), **about)


def lora_settings(config: AlignConfig) -> dict[str, Any]:
    return {"rank": config.rank, "alpha": config.alpha, "dropout": LORA_DROPOUT, "targets": PROJECTIONS}


def about_of(model: Dataset) -> dict[str, str]:
    """What goes into model.json beside the shape. UserError for a model that was never shown an instruction."""
    model.file("model.safetensors")
    about = json.loads(model.file("model.json").read_bytes())
    if about["layout"] != "natural":
        raise UserError(
            f"{model.stage}/{model.name} knows the layout {about['layout']!r}, expected 'natural': align a model that "
            "was taught instructions (stage instruct)"
        )
    return {key: about[key] for key in ("layout", "template", "tokenizer")} | {"stage": STAGE.name}


def prompts_of(
    stories: Dataset, config: AlignConfig, template: Template, max_length: int
) -> tuple[dict[str, str], list[str]]:
    """Prompts for training, each with the first story it is the summary of, and held-out ones; each once, none in both.

    Those that leave no room for a story go.
    """
    asked: dict[str, dict[str, str]] = {"train": {}, "val": {}}
    for part in stories.parts():
        rows = part.table(["story_id", "summary", "split"]).filter(pc.field("summary").is_valid())
        for story_id, summary, split in zip(*(column.to_pylist() for column in rows.columns), strict=True):
            if split in asked and summary.strip():
                asked[split].setdefault(instruction(summary), story_id)
    train, val = asked["train"], [prompt for prompt in asked["val"] if prompt not in asked["train"]]
    val = [val[i] for i in np.random.Generator(np.random.Philox(key=[config.seed, 1 << 32])).permutation(len(val))]

    def fits(prompt: str) -> bool:
        return len(template.prefix("natural", prompt)) <= max_length // 2

    val = [prompt for prompt in val if fits(prompt)][: config.heldout_prompts]
    train = {prompt: story_id for prompt, story_id in train.items() if fits(prompt)}
    for split, prompts in (("train", train), ("val", val)):
        if not prompts:
            raise UserError(
                f"{stories.stage}/{stories.name} has no usable summary among its {split} rows, expected at least one "
                f"of at most {max_length // 2} tokens (of val rows: one that no train row has)"
            )
    return train, val
