"""What a training stage opens first: tokens and the tokenizer that made them, checked, as batches.

In:   a `tokens` dataset, a `tokenizer` dataset, Training
Out:  Inputs: the tokenizer's file, the layout, batches by step, the held-out stories, what goes into model.json
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.errors import UserError
from lib.model.batches import Batches, Corpus, LossOn
from lib.model.training import Training
from lib.store import Dataset
from lib.text.template import Template, digest_of, layout_of, same_form
from lib.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Inputs:
    pieces: Path  # the verified tokenizer.model
    vocab_size: int
    about: Mapping[str, Any]  # layout, template, tokenizer: what a model was trained on, for model.json
    batches: Batches
    held_out: Batches


def open_inputs(
    *,
    tokens: Dataset,
    tokenizer: Dataset,
    training: Training,
    row_length: int,
    loss_on: LossOn | None = None,
    joined: int = 1,
) -> Inputs:
    """`loss_on`: what the layout's authors score, if not given. `joined`: of a packed layout, batches have 1/joined of
    training.batch_size rows, `joined` · row_length long; no story in them is longer than row_length.

    Raises UserError where the tokens were made with another tokenizer or in another form of their layout, or hold no
    story to train or to test on.
    """
    layout = tokens.manifest["config"]["layout"]
    made_with = tokens.manifest["inputs"]["tokenizer"]["fingerprint"]
    given = tokenizer.fingerprint
    what, do = f"tokens/{tokens.name} was made", "make the tokens again with this one"
    _require_same(what, layout, tokens.facts["template"], made_with, given, tokenizer, do)
    pieces, shape = tokenizer.file("tokenizer.model"), layout_of(layout)
    template = Template(Tokenizer.load(pieces))
    lead = lead_of(template, layout)
    packing: dict[str, Any] = {"lead": lead, "bos_id": template.tokenizer.bos_id, "packed": shape.packed}
    train, val = Corpus(tokens=tokens, split="train"), Corpus(tokens=tokens, split="val", most=training.eval_stories)
    if not shape.packed:  # no position that every row would leave empty
        row_length = min(row_length, len(lead) - 1 + max(int(each.length.max()) for each in (train, val)))
        joined = 1
    packing |= {"batch_size": training.batch_size // joined, "row_length": joined * row_length, "longest": row_length}
    _require_room(tokens, val, len(lead), row_length)
    return Inputs(
        pieces=pieces,
        vocab_size=template.tokenizer.vocab_size,
        about={"layout": layout, "template": digest_of(layout), "tokenizer": tokenizer.fingerprint},
        batches=Batches(corpus=train, seed=training.seed, loss_on=loss_on or shape.loss_on, **packing),
        held_out=Batches(corpus=val, loss_on="evaluation", **packing),
    )


def _require_room(tokens: Dataset, corpus: Corpus, lead: int, row_length: int) -> None:
    """Raises UserError where every prompt fills a row: nothing behind them would be scored."""
    if (corpus.prompt_length + lead > row_length).all():
        raise UserError(
            f"tokens/{tokens.name} has {len(corpus)} of {len(corpus)} held-out sequences whose prompt alone fills a "
            f"row of {row_length} positions (the shortest has {corpus.prompt_length.min()}), so that no answer is left "
            "to score; pretrain with a larger max_length"
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
    """Raises UserError where the model was trained with another tokenizer, or in another form of its layout.

    The tokenizers' files are compared, of which every model holds a copy: an adopted model is its own tokenizer.
    """
    about = json.loads(model.file("model.json").read_bytes())
    made_with, given = (each.manifest["files"]["tokenizer.model"]["sha256"] for each in (model, tokenizer))
    what, do = f"{model.stage}/{model.name} was trained", "use the one it was trained with"
    _require_same(what, about["layout"], about["template"], made_with, given, tokenizer, do)


def require_form(what: str, about: Mapping[str, Any]) -> None:
    """Raises UserError where a model.json names another form of its layout than the Template has."""
    if not same_form(about["layout"], about["template"]):
        raise UserError(f"{what} was trained {_form(about['layout'], about['template'])}; train it again")


def _require_same(what: str, layout: str, form: str, made_with: str, given: str, tokenizer: Dataset, do: str) -> None:
    """Names every field that differs, as it was and as it is given."""
    fields = []
    if made_with != given:
        named = f"{given[:12]}… ({tokenizer.stage}/{tokenizer.name})"
        fields.append(f"with the tokenizer {made_with[:12]}…, not with {named}")
    if not same_form(layout, form):
        fields.append(_form(layout, form))
    if fields:
        raise UserError(f"{what} {', and '.join(fields)}; {do}")


def _form(layout: str, form: str) -> str:
    return f"with the template {form} of layout {layout}, not with {digest_of(layout)}"
