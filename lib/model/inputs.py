"""What a training stage opens first: tokens and the tokenizer that made them, checked, as batches.

In:   a `tokens` dataset, a `tokenizer` dataset, Training
Out:  Inputs: the tokenizer's file, the layout, batches by step, the held-out stories, what goes into model.json
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.errors import UserError
from lib.model.batches import Batches, Corpus, LossOn
from lib.model.training import Training
from lib.store import Dataset
from lib.text.template import Template
from lib.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Inputs:
    pieces: Path  # the verified tokenizer.model
    vocab_size: int
    about: Mapping[str, Any]  # layout, template, tokenizer: what a model was trained on, for model.json
    batches: Batches
    held_out: Batches


def open_inputs(
    *, tokens: Dataset, tokenizer: Dataset, training: Training, row_length: int, loss_on: LossOn = "all"
) -> Inputs:
    """Raises UserError where the tokens were made with another tokenizer, or hold no story to train or to test on."""
    made_with = tokens.manifest["inputs"]["tokenizer"]["fingerprint"]
    if made_with != tokenizer.fingerprint:
        raise UserError(
            f"tokens/{tokens.name} was made with the tokenizer {made_with[:12]}…, not with "
            f"{tokenizer.fingerprint[:12]}… (tokenizer/{tokenizer.name}); make the tokens again with this one"
        )
    pieces, layout = tokenizer.file("tokenizer.model"), tokens.manifest["config"]["layout"]
    template = Template(Tokenizer.load(pieces))
    lead = lead_of(template, layout)
    packing: dict[str, Any] = {"row_length": row_length, "batch_size": training.batch_size, "lead": lead}
    train, val = Corpus(tokens=tokens, split="train"), Corpus(tokens=tokens, split="val", most=training.eval_stories)
    return Inputs(
        pieces=pieces,
        vocab_size=template.tokenizer.vocab_size,
        about={"layout": layout, "template": template.digest, "tokenizer": tokenizer.fingerprint},
        batches=Batches(corpus=train, seed=training.seed, loss_on=loss_on, **packing),
        held_out=Batches(corpus=val, loss_on="evaluation", **packing),
    )


def lead_of(template: Template, layout: str) -> list[int]:
    """What stands before a training sequence when sampling: the EOS of the story before, in the natural layout.

    Stories do not see one another, so a row gets it again before each story: the sampling prefix is then the very start
    of what was trained on.
    """
    # Not of empty texts: where bos and eos are one id, those of a prompt and of a story must stand between.
    prefix, (training, _) = template.prefix(layout, "a"), template.training(layout, "a", "a")
    return next(prefix[:n] for n in range(len(prefix) + 1) if training[: len(prefix) - n] == prefix[n:])


def require_same(*, model: Dataset, tokenizer: Dataset) -> None:
    """Raises UserError where the model was trained with another tokenizer: each holds a copy of its own."""
    theirs, given = (each.manifest["files"]["tokenizer.model"]["sha256"] for each in (model, tokenizer))
    if theirs != given:
        raise UserError(
            f"{model.stage}/{model.name} was trained with the tokenizer {theirs[:12]}…, not with {given[:12]}… "
            f"({tokenizer.stage}/{tokenizer.name}); use the one it was trained with"
        )
