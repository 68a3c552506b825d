"""Instruct: teach a model that writes stories to write the story it is asked for.

In:   base (a pretrained model); tokens in a layout with instructions ("Write a story about …" before each story, or
      tasks before their answers); the tokenizer that made them
Out:  as pretrain; with LoRA also adapter.safetensors and adapter.json, and model.safetensors with the adapter merged in
      _dropped: examples longer than the base's max_length (`too_long`); none is cut
"""

from typing import Literal, Self

from pydantic import Field, model_validator

from lib.model.shape import PROJECTIONS
from lib.model.training import Training
from lib.store import Dataset, Draft, Stage

STAGE = Stage("instruct", 4)
Projection = Literal[PROJECTIONS]


class InstructConfig(Training):
    """Which weights are trained and on which tokens."""

    lr: float = Field(1e-3, gt=0, allow_inf_nan=False, description="learning rate after the warm-up")
    joined: int = Field(
        1, ge=1, description="packed layouts: so many rows of a batch are packed as one, which leaves less of it empty"
    )
    method: Literal["full", "lora"] = Field("full", description="train every weight, or a low-rank addition")
    loss_on: Literal["layout", "all", "story"] = Field(
        "layout",
        description="all: learn to write the instruction, too; story: the story or answer only; "
        "layout: as its authors do, which is all for natural, story for padded and alpaca",
    )
    rank: int = Field(16, ge=1, description="lora: rank of the addition")
    alpha: float = Field(32.0, gt=0, description="lora: the addition counts alpha / rank")
    dropout: float = Field(0.0, ge=0, lt=1, description="lora: share of inputs to the addition that are dropped")
    targets: tuple[Projection, ...] = Field(PROJECTIONS, min_length=1, description="lora: projections it is added to")

    @model_validator(mode="after")
    def _rows_join(self) -> Self:
        if self.batch_size % self.joined:
            raise ValueError(f"found joined {self.joined}, expected a divisor of batch_size {self.batch_size}")
        return self

    @property
    def rows(self) -> int:
        return self.batch_size // self.joined

    def _told_rows(self) -> str:
        return f"batch_size {self.batch_size} / joined {self.joined}"


def instruct(draft: Draft, config: InstructConfig, *, base: Dataset, tokens: Dataset, tokenizer: Dataset) -> None:
    """Train `base` on. UserError where the inputs do not belong together, Diverged on a loss that is no number."""
    import torch

    from lib.model import checkpoint, loop, lora
    from lib.model.inputs import open_inputs, require_same
    from lib.model.network import load_model

    require_same(model=base, tokenizer=tokenizer)
    base.file("model.safetensors")
    model = load_model(base.path)
    inputs = open_inputs(
        tokens=tokens,
        tokenizer=tokenizer,
        training=config,
        row_length=model.shape.max_length,
        loss_on=None if config.loss_on == "layout" else config.loss_on,
        joined=config.joined,
    )
    model.reach(inputs.batches.row_length)
    torch.manual_seed(config.seed)
    settings = config.model_dump(include={"rank", "alpha", "dropout", "targets"})
    if config.method == "lora":
        draft.fact(trained_params=lora.add_lora(model, **settings))
    training = config.model_copy(update={"batch_size": inputs.batches.batch_size})
    loop.train(draft=draft, model=model, training=training, batches=inputs.batches, held_out=inputs.held_out)
    draft.write_table("_dropped/part-00000.parquet", inputs.batches.too_long)
    if config.method == "lora":
        lora.publish_adapter(draft, model, **settings)
        lora.merge(model)
    checkpoint.publish(draft, model=model, pieces=inputs.pieces, stage=draft.stage.name, **inputs.about)
