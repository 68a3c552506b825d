"""Pretrain: learn to write stories, from nothing.

In:   tokens (flat shards and their index), the tokenizer that made them
Out:  model.safetensors, model.json, tokenizer.model; train_steps, evals, scored, seen; _record/speed
      (times, not fingerprinted)
"""

from pydantic import Field

from lib.model.shape import Dimensions, Shape
from lib.model.training import Training
from lib.store import Dataset, Draft, Stage

STAGE = Stage("pretrain", 4)


class PretrainConfig(Training, Dimensions):
    """The network's dimensions and how it is trained."""

    copying: float = Field(
        0.0, ge=0, le=1, description="how strongly the middle layer copies at first; 0: Llama's start"
    )
    dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share dropped of embeddings, attention and what a block adds",
    )


def pretrain(draft: Draft, config: PretrainConfig, *, tokens: Dataset, tokenizer: Dataset) -> None:
    """Train a new network. UserError where the inputs do not belong together, Diverged on a loss that is no number."""
    import torch

    from lib.model import checkpoint, loop
    from lib.model.copying import start_copying
    from lib.model.inputs import open_inputs
    from lib.model.network import Llama

    inputs = open_inputs(tokens=tokens, tokenizer=tokenizer, training=config, row_length=config.max_length)
    shape = Shape(vocab_size=inputs.vocab_size, **{name: getattr(config, name) for name in Dimensions.model_fields})
    torch.manual_seed(config.seed)
    model = Llama(shape, config.dropout)
    start_copying(model, strength=config.copying)
    loop.train(draft=draft, model=model, training=config, batches=inputs.batches, held_out=inputs.held_out)
    checkpoint.publish(draft, model=model, pieces=inputs.pieces, stage=draft.stage.name, **inputs.about)
