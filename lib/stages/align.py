"""Align: make the stories that a reward likes likelier, and stop before the model cheats.

In:   model (instruct), stories (split: the summaries are the prompts), tokens (natural, for held-out bits per byte),
      the tokenizer of all three
Out:  the model as before; rollouts (one row a story written), updates (one a gradient step), evals
Prompts are "Write " + the summaries of train rows; held-out ones those of val rows that no train row has. The facts
reward_before and reward_after are of the held-out prompts, with the same random numbers, before and of the kept model.
"""

import json
from typing import Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from lib.errors import UserError
from lib.model.guards import Limits
from lib.model.shape import PROJECTIONS
from lib.store import Config, Dataset, Draft, Stage, runtime
from lib.text.template import Template, instruction

STAGE = Stage("align", 1)
LORA_DROPOUT = 0.0  # roll-outs are drawn without dropout: with it, the gradient would be that of another policy


class AlignConfig(Config):
    """What is rewarded, how it is learned, and when to stop."""

    rewards: dict[str, float] = Field(
        {"concept": 1.0, "words": 0.5}, description="weight of concept, words, or of any callable by its dotted path"
    )
    concept: str = Field("cat", min_length=1, description="what stories shall be about, for the reward concept")
    unfinished_penalty: float = Field(0.2, ge=0, description="taken off the reward of a story that does not end")
    form: Literal["rloo", "tinycatstories"] = Field("rloo", description="the loss: lib/model/reinforce.py")
    estimator: Literal["k1", "k2", "k3", "exact"] = Field("k1", description="rloo: how the KL is estimated")
    kl_coef: float = Field(0.005, ge=0, description="rloo: reward given up for a nat of a story's KL")
    kl_factor: float = Field(6000.0, ge=0, description="tinycatstories: its KL_FACTOR")
    method: Literal["full", "lora"] = Field("full", description="train every weight, or a low-rank addition")
    rank: int = Field(16, ge=1, description="lora: rank of the addition")
    alpha: float = Field(32.0, gt=0, description="lora: the addition counts alpha / rank")
    updates: int = Field(16, ge=1, description="gradient steps")
    prompts_per_update: int = Field(8, ge=1, description="different prompts in an update")
    samples_per_prompt: int = Field(4, ge=1, description="stories for each of them; rloo needs two")
    lr: float = Field(3e-4, gt=0, description="learning rate after the warm-up")
    warmup: int = Field(2, ge=0, description="updates of linear warm-up")
    clip: float = Field(1.0, gt=0, description="largest gradient norm")
    temperature: float = Field(1.0, gt=0, description="of the stories; the policy is the model at this temperature")
    max_new: int = Field(224, ge=1, description="most tokens of a story; the model's max_length bounds it too")
    seed: int = Field(0, ge=0, description="of prompts and stories")
    heldout_prompts: int = Field(32, ge=1, description="answered at each look")
    eval_every: int = Field(4, ge=1, description="updates between two looks at the held-out prompts")
    eval_stories: int = Field(64, ge=1, description="at most so many val stories are scored at each look")
    guards: Limits = Field(Limits(), description="a model that breaks one stops the updates and is not kept")
    precision: Literal["auto", "bf16", "fp32"] = Field("auto", description="of the training pass; stories: float32")
    checkpoint_every: int = runtime(4, ge=1, description="updates between two checkpoints")
    device: str = runtime("auto", description="auto: cuda if there is one, else cpu")
    threads: int | None = runtime(None, ge=1, description="processor threads; all if not given")

    @model_validator(mode="after")
    def _has_a_baseline(self) -> Self:
        if self.form == "rloo" and self.samples_per_prompt < 2:
            raise ValueError("form rloo needs samples_per_prompt of at least 2: the others are the baseline")
        return self


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
    torch.manual_seed(config.seed)
    settings = {"rank": config.rank, "alpha": config.alpha, "dropout": LORA_DROPOUT, "targets": PROJECTIONS}
    if config.method == "lora":
        lora.add_lora(policy, **settings)
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
            val=heldout.val_batches(tokens, template, config.eval_stories, policy.shape.max_length),
            dtype=compute.pick_dtype(config.precision, device),
        )
    )
    if config.method == "lora":
        lora.save_adapter(policy, draft.path, **settings)
        draft.adopt("adapter.safetensors")
        draft.adopt("adapter.json")
        lora.merge(policy)
    checkpoint.publish(draft, model=policy, pieces=tokenizer.file("tokenizer.model"), **about)


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
) -> tuple[list[str], list[str]]:
    """Prompts for training, and held-out ones; each once, none in both. Those that leave no room for a story go."""
    asked: dict[str, list[str]] = {"train": [], "val": []}
    for part in stories.parts():
        rows = part.table(["summary", "split"])
        for split, prompts in asked.items():
            prompts += summaries(rows.filter(pc.field("split") == split))
    known = set(asked["train"])
    train, val = list(dict.fromkeys(asked["train"])), [p for p in dict.fromkeys(asked["val"]) if p not in known]
    val = [val[i] for i in np.random.Generator(np.random.Philox(key=[config.seed, 1 << 32])).permutation(len(val))]
    train, val = ([instruction(p) for p in each] for each in (train, val))

    def fits(prompt: str) -> bool:
        return len(template.prefix("natural", prompt)) <= max_length // 2

    val = [prompt for prompt in val if fits(prompt)][: config.heldout_prompts]
    train = [prompt for prompt in train if fits(prompt)]
    for split, prompts in (("train", train), ("val", val)):
        if not prompts:
            raise UserError(
                f"{stories.stage}/{stories.name} has no usable summary among its {split} rows, expected at least one "
                f"of at most {max_length // 2} tokens (of val rows: one that no train row has)"
            )
    return train, val


def summaries(rows: pa.Table) -> list[str]:
    return [text.strip() for text in rows["summary"].drop_null().to_pylist() if text.strip()]
