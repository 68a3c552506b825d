"""Held-out loss: nats per token and bits per byte of val stories, for pretraining, instructions and alignment alike.

In:   tokens, a Template; a network
Out:  val stories as batches; the loss on them, in float32 whatever the training computes in; and which stories it is
      of, a table by which SQL finds the same sum again in evaluate's story_loss
"""

import math
from collections.abc import Iterable

import pyarrow as pa
import torch

from lib.model.batches import Batch, Batches, Corpus
from lib.model.inputs import lead_of
from lib.model.network import Llama, nats_per_target
from lib.store import Dataset
from lib.text.template import Template

ROWS = 16  # in a pass


def val_stories(tokens: Dataset, template: Template, most: int, row_length: int) -> Batches:
    """The first `most` val stories by story_id, each behind its instruction, of which nothing is scored."""
    corpus = Corpus(tokens=tokens, split="val", most=most)
    lead = lead_of(template, tokens.manifest["config"]["layout"])
    packing = {"row_length": row_length, "batch_size": ROWS, "bos_id": template.tokenizer.bos_id, "lead": lead}
    return Batches(corpus=corpus, loss_on="evaluation", **packing)


def val_loss(model: Llama, batches: Iterable[Batch]) -> dict[str, float]:
    """nats_per_token, bits_per_byte, tokens and bytes: a row of `evals` but for step and split."""
    return loss_row(*sums(model, batches))


@torch.no_grad()
def sums(model: Llama, batches: Iterable[Batch]) -> tuple[float, int, float]:
    """Nats, tokens and bytes of what is scored."""
    nats, tokens, text_bytes, device = 0.0, 0, 0.0, model.norm.weight.device
    for batch in batches:
        on_device = batch.to(device)
        logits_BTV = model(on_device.ids_BT, on_device.document_BT)
        nats += float(nats_per_target(logits_BTV=logits_BTV, targets_BT=on_device.targets_BT).double().sum())
        tokens, text_bytes = tokens + batch.num_targets, text_bytes + batch.text_bytes
    return nats, tokens, text_bytes


def loss_row(nats: float, tokens: float, text_bytes: float) -> dict[str, float]:
    return {
        "nats_per_token": nats / tokens,
        "bits_per_byte": nats / math.log(2) / text_bytes,
        "tokens": int(tokens),
        "bytes": round(text_bytes),
    }


def scored(stories: Batches) -> pa.Table:
    """Which stories `evals` are of."""
    return pa.table({"story_id": stories.corpus.story_ids})
