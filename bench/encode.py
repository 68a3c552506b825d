"""Encode, measured: stories to files of ids, ours beside llama2.c's `process_shard`, in MB of text per CPU-second.

In:   Markov stories (bench/texts.py), a vocabulary of 4,096 trained on them with our flags
Out:  ids as uint16, one story after the other

    ours             the whole tokens stage: reads the split's Parquet parts of 2,000 stories, writes a shard and an
                     index a part (where each story lies, its lengths), fsync and sha256 of every file, the manifest
    llama2.c         `process_shard` of the checkout given by --llama2c, imported from there, on one JSON shard of the
                     same stories, with the same model; no index, no checksum
    plain            without a checkout: what that function does, SentencePiece a story at a time into one long list

`differing` counts the stories whose ids are not SentencePiece's own; it must be 0. Growth: ours on 16 times the rows,
time per story.
"""

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.beside import Case, Row, alone, beside
from bench.clean import GROWN, growth
from bench.texts import markov

STORIES, PART_ROWS, VOCABULARY = 48_000, 2000, 4096
Work = Callable[[], dict[str, Any]]


def corpus(count: int, stories: str | None) -> Path:
    """A folder with data/ (split and tokenizer datasets, handles.json) and shard.json, made once."""
    name = hashlib.sha256(repr((count, stories, PART_ROWS, VOCABULARY, "encode-2")).encode()).hexdigest()[:12]
    folder = Path(tempfile.gettempdir()) / "storymill-bench" / name
    os.environ["STORYMILL_DATA"] = str(folder / "data")
    if not (folder / "handles.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        texts = markov(count, path=stories)
        (folder / "shard.json").write_text(json.dumps([{"story": text} for text in texts]))
        handles = {"stories": _split(texts), "tokenizer": tokenizer_for(texts, VOCABULARY)}
        (folder / "megabytes.txt").write_text(str(sum(len(text.encode()) for text in texts) / 1e6))
        (folder / "handles.json").write_text(json.dumps({key: each.model_dump() for key, each in handles.items()}))
    return folder


def _split(texts: list[str]):
    import pyarrow as pa

    from lib.store import Config, Draft, Stage, build
    from lib.store.schemas import SPLIT

    class Given(Config):
        count: int = len(texts)

    def fill(draft: Draft, config: Given) -> None:
        for n, start in enumerate(range(0, len(texts), PART_ROWS)):
            part = enumerate(texts[start : start + PART_ROWS], start)
            rows = [{"story_id": f"s{n}", "text": text, "split": "train"} for n, text in part]
            draft.write_table(f"part-{n:05d}.parquet", pa.Table.from_pylist(rows, schema=SPLIT))

    return build(Stage("split", 1), Given(), {}, fill)


def tokenizer_for(texts: list[str], pieces: int):
    """The tokenizer dataset that our stage would make of these texts."""
    from lib.store import Config, Draft, Stage, build
    from lib.text.tokenizer import train

    class Given(Config):
        vocab_size: int = pieces

    def fill(draft: Draft, config: Given) -> None:
        train(texts, draft.path / "tokenizer.model", config.vocab_size)
        draft.adopt("tokenizer.model")

    return build(Stage("tokenizer", 1), Given(), {}, fill)


def _handles(folder: Path):
    from lib.store import Dataset

    return {key: Dataset(**each) for key, each in json.loads((folder / "handles.json").read_text()).items()}


def ours(count: int = STORIES, stories: str | None = None) -> Work:
    import pyarrow as pa

    folder = corpus(count, stories)
    from lib.stages.tokens import STAGE, TokensConfig, tokens
    from lib.store import build
    from lib.text.tokenizer import Tokenizer

    pa.set_cpu_count(1)
    handles, megabytes = _handles(folder), _megabytes(folder)
    Tokenizer.load(handles["tokenizer"].file("tokenizer.model"))  # SentencePiece is imported before the clock starts
    shutil.rmtree(folder / "data" / "tokens", ignore_errors=True)

    def work() -> dict[str, Any]:
        made = build(STAGE, TokensConfig(layout="pretrain"), handles, tokens)
        return {"mb": megabytes, "tokens": made.facts["tokens"]["train"]}

    return work


def differing(count: int = STORIES, stories: str | None = None) -> Work:
    """How many stories have other ids in our shards than SentencePiece gives them; a case, but no peer."""
    folder = corpus(count, stories)
    import numpy as np

    from lib.stages.tokens import STAGE, TokensConfig, tokens
    from lib.store import build
    from lib.text.tokenizer import Tokenizer

    handles = _handles(folder)

    def work() -> dict[str, Any]:
        made = build(STAGE, TokensConfig(layout="pretrain"), handles, tokens)
        tokenizer = Tokenizer.load(handles["tokenizer"].file("tokenizer.model"))
        texts, wrong = handles["stories"].table(["text"])["text"].to_pylist(), 0
        shards = {
            n: np.fromfile(made.file(f"tokens-{n:05d}.bin"), made.facts["dtype"]) for n in range(len(made.parts()))
        }
        for text, row in zip(texts, made.table(["shard", "offset", "length"]).to_pylist(), strict=True):
            ids = shards[row["shard"]][row["offset"] : row["offset"] + row["length"]].tolist()
            wrong += ids != [tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id]
        return {"differing": wrong, "stories": len(texts)}

    return work


def llama2c(count: int = STORIES, stories: str | None = None, checkout: str = "") -> Work:
    folder = corpus(count, stories)
    sys.path.insert(0, checkout)
    import tinystories  # from the checkout

    tinystories.DATA_CACHE_DIR = tempfile.mkdtemp()
    model = Path(tinystories.DATA_CACHE_DIR) / f"tok{VOCABULARY}.model"
    shutil.copy(_handles(folder)["tokenizer"].file("tokenizer.model"), model)
    model.with_suffix("").mkdir()
    megabytes = _megabytes(folder)

    def work() -> dict[str, Any]:
        tinystories.process_shard((0, str(folder / "shard.json")), vocab_size=VOCABULARY)
        return {"mb": megabytes, "tokens": (model.with_suffix("") / "shard.bin").stat().st_size // 2}

    return work


def plain(count: int = STORIES, stories: str | None = None) -> Work:
    folder = corpus(count, stories)
    import numpy as np
    from sentencepiece import SentencePieceProcessor

    model = SentencePieceProcessor(model_file=str(_handles(folder)["tokenizer"].file("tokenizer.model")))
    out, megabytes = Path(tempfile.mkdtemp()), _megabytes(folder)

    def work() -> dict[str, Any]:
        ids: list[int] = []
        for row in json.loads((folder / "shard.json").read_text()):
            ids.extend([model.bos_id(), *model.encode(row["story"].strip())])
        np.array(ids, np.uint16).tofile(out / "shard.bin")
        return {"mb": megabytes, "tokens": len(ids)}

    return work


def _megabytes(folder: Path) -> float:
    return float((folder / "megabytes.txt").read_text())


# ---- the table


def table(*, rounds: int, stories: str | None, llama2c: str | None, count: int = STORIES) -> list[Row]:
    """Ours beside the peer, and ours beside itself on a sixteenth of the rows."""
    full, few = {"count": count, "stories": stories}, {"count": count // GROWN, "stories": stories}
    name = "llama2.c process_shard" if llama2c else "SentencePiece a story at a time"
    peer = (
        Case(name, __name__, "llama2c", full | {"checkout": llama2c})
        if llama2c
        else Case(name, __name__, "plain", full)
    )
    measured = beside([Case("ours", __name__, "ours", full), Case("few", __name__, "ours", few), peer], rounds)
    checked = alone(Case("differing", __name__, "differing", full)).figures
    mine, theirs = (measured[each].figures["mb"] / measured[each].cpu_s for each in ("ours", name))
    tokens = {each: measured[each].figures["tokens"] for each in ("ours", name)}
    note = (
        f"{checked['differing']} of {checked['stories']:,} stories with other ids than SentencePiece's; "
        f"{tokens['ours']:,} ids with an EOS a story, the peer {tokens[name]:,} without"
    )
    return [
        Row("tokens", f"{mine:.1f} MB/CPU-s", f"{name} {theirs:.1f}", mine / theirs, 5.0, note),
        growth("tokens", measured["few"], measured["ours"], count // GROWN, count),
    ]


if __name__ == "__main__":
    for row in table(rounds=2, stories=None, llama2c=sys.argv[1] if len(sys.argv) > 1 else None):
        print(row)
