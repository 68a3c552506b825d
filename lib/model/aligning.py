"""What steers an alignment. Imports no torch, so that configs load fast.

Defaults are for 1.2 million parameters on two CPU cores: an update writes 32 stories of about 150 tokens in 2.5 to 3 s.
With lr 1e-3 the policy ran 1.4 nats a token away from the reference in five updates and its text fell apart; at 3e-4 it
stayed below 0.2 after eight.
"""

import re
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from lib.model.guards import Limits
from lib.model.training import LARGEST_SEED
from lib.store import Config, runtime
from lib.text.judge import JudgeConfig

SURROGATE = re.compile("[\ud800-\udfff]")


class Aligning(Config):
    """What is rewarded, how it is learned, and when to stop."""

    rewards: dict[str, float] = Field(
        {"concept": 1.0, "words": 0.5},
        description="weight of concept, words, judge, or of any callable by its dotted path",
    )
    concept: str = Field("cat", min_length=1, description="what stories shall be about, for the reward concept")
    judge: JudgeConfig | None = Field(None, description="who marks the stories, for the reward judge")
    unfinished_penalty: float = Field(0.2, ge=0, description="taken off the reward of a story that does not end")
    prompts: tuple[str, ...] = Field(
        (), description="learn on these requests (of a base model: openings) instead of those of the train stories"
    )
    prompts_file: str | None = Field(None, description="the same from a text file, one a line")
    opening_words: int = Field(6, ge=1, description="base model: words of a story that make an opening")
    form: Literal["rloo", "grpo", "dpo", "tinycatstories"] = Field(
        "rloo", description="the loss: lib/model/reinforce.py, lib/model/preference.py"
    )
    estimator: Literal["k1", "k2", "k3", "exact"] = Field("k1", description="rloo, grpo: how the KL is estimated")
    kl_coef: float = Field(0.002, ge=0, description="rloo, grpo: reward given up for a nat of KL")
    epochs: int = Field(1, ge=1, description="gradient steps on the same stories; not tinycatstories")
    clip_ratio: float = Field(0.2, gt=0, lt=1, description="rloo, grpo: how far such steps may move a token's odds")
    beta: float = Field(0.1, gt=0, description="dpo: what a nat of difference to the reference counts")
    margin: float = Field(0.0, ge=0, description="dpo: a pair's rewards differ by more than this")
    kl_factor: float = Field(6000.0, ge=0, description="tinycatstories: its KL_FACTOR")
    length: int | None = Field(
        None, ge=1, description="tinycatstories: its NUM_TOKENS, which divides the loss; null: max_new"
    )
    anchor_coef: float = Field(0.0, ge=0, description="weight of the loss on train stories, in nats per token")
    anchor_rows: int = Field(4, ge=1, description="rows of train stories, of the model's max_length, in an update")
    method: Literal["full", "lora"] = Field("full", description="train every weight, or a low-rank addition")
    rank: int = Field(16, ge=1, description="lora: rank of the addition")
    alpha: float = Field(32.0, gt=0, description="lora: the addition counts alpha / rank")
    updates: int = Field(15, ge=1, description="rounds of writing, rewarding and learning")
    prompts_per_update: int = Field(4, ge=1, description="different prompts in an update")
    samples_per_prompt: int = Field(8, ge=1, description="stories for each of them; rloo, grpo and dpo need two")
    lr: float = Field(3e-4, gt=0, description="learning rate after the warm-up")
    warmup: int = Field(2, ge=0, description="updates of linear warm-up")
    clip: float | None = Field(1.0, gt=0, description="largest gradient norm; null: any")
    betas: tuple[float, float] = Field((0.9, 0.95), description="AdamW's two memories")
    weight_decay: float = Field(0.0, ge=0, description="of AdamW, on every weight")
    temperature: float = Field(1.0, gt=0, description="of the stories; the policy is the model at this temperature")
    max_new: int = Field(224, ge=1, description="most tokens of a story; the model's max_length bounds it too")
    seed: int = Field(0, ge=0, le=LARGEST_SEED, description="of prompts and stories")
    heldout_prompts: int = Field(32, ge=1, description="answered at each look; they choose which model is kept")
    report_prompts: int = Field(32, ge=1, description="other held-out ones, of which reward_before and _after are")
    eval_every: int = Field(5, ge=1, description="updates between two looks at the held-out prompts")
    eval_stories: int = Field(64, ge=1, description="at most so many val stories are scored at each look")
    guards: Limits = Field(Limits(), description="a model that breaks one stops the updates and is not kept")
    precision: Literal["auto", "bf16", "fp32"] = Field("auto", description="of the training pass; stories: float32")
    checkpoint_every: int = runtime(5, ge=1, description="updates between two checkpoints")
    device: str = runtime("auto", description="auto: cuda if there is one, else cpu")
    threads: int | None = runtime(None, ge=1, description="processor threads; all if not given")

    @field_validator("prompts")
    @classmethod
    def _can_be_asked(cls, prompts: tuple[str, ...]) -> tuple[str, ...]:
        for prompt in prompts:
            if not prompt.strip():
                raise ValueError(f"found the prompt {prompt!r}, expected words; leave it out")
            if odd := SURROGATE.search(prompt):
                raise ValueError(f"found {odd[0]!r} in the prompt {prompt!r}, half of a character; leave it out")
        return prompts

    @model_validator(mode="after")
    def _can_be_learned(self) -> Self:
        if self.form != "tinycatstories" and self.samples_per_prompt < 2:
            raise ValueError(
                f"form {self.form} needs samples_per_prompt of at least 2: a story is compared with the others of its "
                "prompt"
            )
        if self.form == "tinycatstories" and self.epochs > 1:
            raise ValueError(
                f"found epochs {self.epochs}, but form tinycatstories takes one step on its stories; set epochs to 1"
            )
        if self.rewards.get("judge") and self.judge is None:
            raise ValueError("the reward judge needs to know whom to ask: give judge.model (and judge.base_url)")
        if self.prompts and self.prompts_file:
            raise ValueError("found both prompts and prompts_file, expected one of them")
        return self
