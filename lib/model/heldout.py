"""Held-out loss: nats per token and bits per byte of val stories, for pretraining, instructions and alignment alike.

In:   tokens, a Template; a network
Out:  val stories as batches; the loss on them, in float32 whatever the training computes in; and which stories it is
      of, a table by which SQL finds the same sum again in evaluate's story_loss
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pyarrow as pa
import torch

from lib.model.batches import Batch, Batches, Corpus
from lib.model.chunked import CHUNK
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
    """Nats, tokens and bytes of what is scored. Of the logits CHUNK positions exist at any time."""
    nats, tokens, text_bytes, device = 0.0, 0, 0.0, model.norm.weight.device
    with _uncompiled(model):
        for batch in batches:
            nats += _nats(model, batch.to(device))
            tokens, text_bytes = tokens + batch.num_targets, text_bytes + batch.text_bytes
    return nats, tokens, text_bytes


def _nats(model: Llama, batch: Batch) -> float:
    x_ND, targets_N = model.hidden(batch.ids_BT, batch.document_BT).flatten(0, 1), batch.targets_BT.flatten()
    nats = torch.zeros((), dtype=torch.float64, device=x_ND.device)
    for x_MD, targets_M in zip(x_ND.split(CHUNK), targets_N.split(CHUNK), strict=True):
        nats += nats_per_target(logits_BTV=model.output(x_MD)[None], targets_BT=targets_M[None]).double().sum()
    return float(nats)


@contextmanager
def _uncompiled(model: Llama) -> Iterator[None]:
    """Attention by SDPA with a mask: FlexAttention and attention written out pay when compiled, and here hold all
    scores of all heads.
    """
    ways = model.flex_attention, model.explicit_attention
    model.flex_attention = model.explicit_attention = False
    try:
        yield
    finally:
        model.flex_attention, model.explicit_attention = ways


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
