"""Roll-outs: stories that the policy writes, and how likely policy and reference find every token of them.

In:   a Sampler, a Template, prompts; a network
Out:  Rollout rows; log-probabilities at the generated tokens, with or without a graph
On:   the natural layout: [EOS] prompt [BOS] stands before the story; EOS (or BOS) ends it and is a token like any other

Letters: B roll-outs, T positions, N generated tokens of all roll-outs, D width, V vocabulary.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lib.model.compute import autocast
from lib.model.network import Llama
from lib.model.rewards import Scores
from lib.model.sampling import Completion, Sampler
from lib.text.template import Template

LAYOUT = "natural"
BATCH_TOKENS = 8192  # positions in one pass


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
    max_new: int
    temperature: float

    def write(self, sampler: Sampler, prompts: Sequence[str], *, seed: int) -> list[Rollout]:
        """One story a prompt; a prompt that stands there again gets another one."""
        stops = self.template.stop_ids(LAYOUT)
        prefixes = [self.template.prefix(LAYOUT, prompt) for prompt in prompts]
        completions = sampler.generate(
            prefixes, max_new=self.max_new, temperature=self.temperature, stop_ids=stops, seed=seed
        )
        texts = [self.template.tokenizer.decode(i for i in each.ids if i not in stops).strip() for each in completions]
        return [Rollout(*row) for row in zip(prompts, prefixes, completions, texts, strict=True)]


def rows(
    rollouts: Sequence[Rollout], scores: Scores, advantages: Sequence[float], kl: Sequence[float]
) -> Iterator[dict[str, Any]]:
    """Rows of the table `rollouts`, but for the number of the update."""
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
        }


def chunks(rollouts: Sequence[Rollout]) -> Iterator[list[int]]:
    """Places of roll-outs in groups of like length, at most BATCH_TOKENS positions each, padding included."""
    group: list[int] = []
    for place in sorted(range(len(rollouts)), key=lambda i: len(rollouts[i].ids)):
        if group and (len(group) + 1) * len(rollouts[place].ids) > BATCH_TOKENS:
            yield group
            group = []
        group.append(place)
    if group:
        yield group


def generated(rollouts: Sequence[Rollout]) -> tuple[Tensor, Tensor]:
    """ids_N and row_N: every generated token, and the roll-out it belongs to."""
    ids_N = torch.tensor([i for each in rollouts for i in each.completion.ids])
    lengths_B = torch.tensor([len(each.completion.ids) for each in rollouts])
    return ids_N, torch.repeat_interleave(torch.arange(len(rollouts)), lengths_B)


def logprobs(model: Llama, rollouts: Sequence[Rollout], *, temperature: float, dtype: torch.dtype) -> Tensor:
    """log π at every generated token over the whole vocabulary, (N, V), float32, in the order of `generated`."""
    device = model.norm.weight.device
    longest = max(len(each.ids) for each in rollouts) - 1
    ids_BT = torch.zeros(len(rollouts), longest, dtype=torch.long)
    scored_BT = torch.zeros(len(rollouts), longest, dtype=torch.bool)
    for row, each in enumerate(rollouts):
        ids_BT[row, : len(each.ids) - 1] = torch.tensor(each.ids[:-1])
        scored_BT[row, len(each.prefix) - 1 : len(each.ids) - 1] = True
    with autocast(device, dtype):  # padding stands behind the story and attention is causal: it changes nothing
        x_ND = model.hidden(ids_BT.to(device))[scored_BT.to(device)]  # no logits where nothing was generated
        logits_NV = model.output(x_ND).float()
    return (logits_NV if temperature == 1 else logits_NV / temperature).log_softmax(-1)


@torch.no_grad()
def logprobs_of_drawn(
    model: Llama, rollouts: Sequence[Rollout], *, temperature: float, dtype: torch.dtype
) -> list[Tensor]:
    """log π of the generated tokens alone: one tensor a roll-out, on the CPU."""
    out: list[Tensor] = [torch.empty(0)] * len(rollouts)
    for places in chunks(rollouts):
        group = [rollouts[i] for i in places]
        ids_N, _ = generated(group)
        logprobs_NV = logprobs(model, group, temperature=temperature, dtype=dtype).cpu()
        drawn_N = logprobs_NV.gather(1, ids_N[:, None])[:, 0]
        for place, values in zip(places, drawn_N.split([len(each.completion.ids) for each in group]), strict=True):
            out[place] = values
    return out
