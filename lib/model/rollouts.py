"""Roll-outs: stories that the policy writes, and how likely policy and reference find every token of them.

In:   a Sampler, a Template, prompts; a network
Out:  Rollout rows; log-probabilities at the generated tokens, with or without a graph
On:   the model's own layout: it says what stands before the story (lib/text/template.py), and which ids end it; the id
      that ends it is a token like any other

Letters: B roll-outs, T positions, N generated tokens of all roll-outs, D width, V vocabulary.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lib.model.compute import autocast
from lib.model.network import Llama
from lib.model.rewards import Scores
from lib.model.sampling import Completion, Sampler
from lib.text.template import Template, layout_of

BATCH_TOKENS = 8192  # positions in one pass
BATCH_LOGITS = 1 << 26  # numbers of one pass over the vocabulary, 256 MB: 2,048 positions at 32,000 pieces


@dataclass(frozen=True)
class Rollout:
    """One story, written for one prompt."""

    prompt: str
    prefix: list[int]
    completion: Completion
    text: str

    @property
    def ids(self) -> list[int]:
        return self.prefix + self.completion.ids


@dataclass(frozen=True)
class Writer:
    """How stories are written: for training and for the held-out prompts alike."""

    template: Template
    layout: str
    max_new: int
    temperature: float

    def write(self, sampler: Sampler, prompts: Sequence[str], *, seed: int) -> list[Rollout]:
        """One story a prompt; a prompt that stands there again gets another one."""
        stops = self.template.stop_ids(self.layout)
        prefixes = [self.template.prefix(self.layout, prompt) for prompt in prompts]
        completions = sampler.generate(
            prefixes, max_new=self.max_new, temperature=self.temperature, stop_ids=stops, seed=seed
        )
        texts = [self._text(*each, stops) for each in zip(prefixes, completions, strict=True)]
        return [Rollout(*row) for row in zip(prompts, prefixes, completions, texts, strict=True)]

    def _text(self, prefix: Sequence[int], completion: Completion, stops: set[int]) -> str:
        """The whole story. Of an opening that is gone on with, the opening is part of it."""
        opening = [] if layout_of(self.layout).has_prompt else prefix
        return self.template.tokenizer.decode(i for i in [*opening, *completion.ids] if i not in stops).strip()


def rows(
    rollouts: Sequence[Rollout],
    scores: Scores,
    advantages: Sequence[float],
    kl: Sequence[float],
    pairs: Iterable[tuple[int, int]] = (),
) -> Iterator[dict[str, Any]]:
    """Rows of the table `rollouts`, but for the number of the update. `pairs`: places of chosen and rejected."""
    side = {place: name for pair in pairs for place, name in zip(pair, ("chosen", "rejected"), strict=True)}
    for b, each in enumerate(rollouts):
        yield {
            "prompt": each.prompt,
            "text": each.text,
            "reward": scores.total[b],
            "concept": scores.parts["concept"][b] if "concept" in scores.parts else None,
            "words": scores.parts["words"][b] if "words" in scores.parts else None,
            "logprob": math.fsum(each.completion.logprobs),
            "kl": kl[b],
            "advantage": advantages[b],
            "tokens": len(each.completion.ids),
            "ended": each.completion.ended,
            "parts": {name: values[b] for name, values in scores.parts.items()},
            "pair": side.get(b),
        }


def chunks(rollouts: Sequence[Rollout], *, vocab_size: int, together: int = 1) -> Iterator[list[int]]:
    """Places of roll-outs in groups of like length, each of which fits one pass, padding included.

    `together` neighbours (2: a pair) are never parted.
    """
    most = min(BATCH_TOKENS, BATCH_LOGITS // vocab_size)
    units = [list(range(start, start + together)) for start in range(0, len(rollouts), together)]
    longest = {unit[0]: max(len(rollouts[i].ids) for i in unit) for unit in units}
    group: list[int] = []
    for unit in sorted(units, key=lambda unit: longest[unit[0]]):
        if group and (len(group) + together) * longest[unit[0]] > most:
            yield group
            group = []
        group = group + unit
    if group:
        yield group


def generated(rollouts: Sequence[Rollout]) -> tuple[Tensor, Tensor]:
    """ids_N and row_N: every generated token, and the roll-out it belongs to."""
    ids_N = torch.tensor([i for each in rollouts for i in each.completion.ids])
    lengths_B = torch.tensor([len(each.completion.ids) for each in rollouts])
    return ids_N, torch.repeat_interleave(torch.arange(len(rollouts)), lengths_B)


def logprobs(model: Llama, rollouts: Sequence[Rollout], *, temperature: float, dtype: torch.dtype) -> Tensor:
    """log π at every generated token over the whole vocabulary, (N, V), float32 or finer, as `generated` has them."""
    device = model.norm.weight.device
    longest = max(len(each.ids) for each in rollouts) - 1
    ids_BT = torch.zeros(len(rollouts), longest, dtype=torch.long)
    scored_BT = torch.zeros(len(rollouts), longest, dtype=torch.bool)
    for row, each in enumerate(rollouts):
        ids_BT[row, : len(each.ids) - 1] = torch.tensor(each.ids[:-1])
        scored_BT[row, len(each.prefix) - 1 : len(each.ids) - 1] = True
    with autocast(device, dtype):  # padding stands behind the story and attention is causal: it changes nothing
        x_ND = model.hidden(ids_BT.to(device))[scored_BT.to(device)]  # no logits where nothing was generated
        logits_NV = model.output(x_ND)
    logits_NV = logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32))
    return (logits_NV if temperature == 1 else logits_NV / temperature).log_softmax(-1)


@torch.no_grad()
def logprobs_of_drawn(
    model: Llama, rollouts: Sequence[Rollout], *, temperature: float, dtype: torch.dtype
) -> list[Tensor]:
    """log π of the generated tokens alone: one tensor a roll-out, on the CPU."""
    out: list[Tensor] = [torch.empty(0)] * len(rollouts)
    for places in chunks(rollouts, vocab_size=model.shape.vocab_size):
        group = [rollouts[i] for i in places]
        ids_N, _ = generated(group)
        logprobs_NV = logprobs(model, group, temperature=temperature, dtype=dtype).cpu()
        drawn_N = logprobs_NV.gather(1, ids_N[:, None])[:, 0]
        for place, values in zip(places, drawn_N.split([len(each.completion.ids) for each in group]), strict=True):
            out[place] = values
    return out
