"""Held-out loss during alignment: bits per byte of val stories, as the training loop (lib/model/loop.py) measures it.

In:   tokens in the natural layout, a Template; a network
Out:  batches, made once; the loss on them
"""

import math
from collections.abc import Sequence

import torch

from lib.model.batches import Batch, Batches, Corpus
from lib.model.compute import autocast
from lib.model.inputs import lead_of
from lib.model.network import Llama, nats_per_target
from lib.store import Dataset
from lib.text.template import Template

ROWS = 16  # in a pass


def val_batches(tokens: Dataset, template: Template, most: int, row_length: int) -> list[Batch]:
    """The first `most` val stories, each behind its instruction, of which nothing is scored."""
    corpus = Corpus(tokens=tokens, split="val", most=most)
    lead = lead_of(template, tokens.manifest["config"]["layout"])
    packed = Batches(corpus=corpus, row_length=row_length, batch_size=ROWS, loss_on="evaluation", lead=lead)
    return packed.in_order()


@torch.no_grad()
def val_loss(model: Llama, batches: Sequence[Batch], dtype: torch.dtype) -> dict[str, float]:
    """nats_per_token, bits_per_byte, tokens and bytes: a row of `evals` but for step and split."""
    nats, tokens, text_bytes, device = 0.0, 0, 0.0, model.norm.weight.device
    for batch in batches:
        ids_BT, document_BT, targets_BT = (x.to(device) for x in (batch.ids_BT, batch.document_BT, batch.targets_BT))
        with autocast(device, dtype):
            logits_BTV = model(ids_BT, document_BT)
        nats += float(nats_per_target(logits_BTV=logits_BTV, targets_BT=targets_BT).double().sum())
        tokens, text_bytes = tokens + batch.num_targets, text_bytes + batch.text_bytes
    return {
        "nats_per_token": nats / tokens,
        "bits_per_byte": nats / math.log(2) / text_bytes,
        "tokens": tokens,
        "bytes": round(text_bytes),
    }
