"""Curve, measured: bits per byte of held-out stories against minutes of training, ours beside llama2.c's recipe.

    python -m bench.curve --stories train.jsonl --heldout valid.jsonl --llama2c ../llama2.c --minutes 15

In:   real stories (.jsonl with `text`), held-out ones (or every 20th of the others), llama2.c's checkout
Out:  curve.json and curve.png in --out; a table row: how many times sooner ours has the peer's last figure

Both get the same cores, vocabulary, network (1.25 million parameters) and stories. A minute is a minute of all the
cores that the run was given: CPU time over their number, children included, so that neighbours on a shared machine
tilt nothing. It counts from before the network is built: compiling counts, looking at held-out stories does not. A
figure is of a whole run that was planned for its minutes, with its learning rate at zero at the end: ours for a
fifteenth, a sixth and a third of --minutes.

    ours       the laptop's pretraining: Muon, small batches, a start that copies, whole stories packed in rows of 384
    llama2.c   Transformer, configure_optimizers and random windows of 256 from the checkout, cosine to zero, compiled
               (train.py's default), float32 as train.py has it on a CPU. Of its batch of 512 windows a CPU would see 75
               in 15 minutes: it gets 32 windows a step, a warm-up of 5 % and the learning rate of its 260K model, 1e-3

Measured alike: each story alone, its first 256 tokens given BOS, and its end: EOS, or the BOS that llama2.c puts
between stories. Bytes are those of the text; of a longer story the share of its tokens that was scored.
"""

import hashlib
import json
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

from bench.beside import Case, Row, alone
from bench.texts import source

VOCABULARY, ROW, SHARES, BAR = 2048, 256, (1 / 15, 1 / 6, 1 / 3), 3.0
LOOKS, TRIAL = (
    3,
    12,
)  # looks at held-out stories in a run, some seconds each; steps after which its number of steps is settled
IN_ONE = {"TORCHINDUCTOR_COMPILE_THREADS": "1"}  # the compiler's own time is then counted, too
Work = Callable[[], dict[str, Any]]


def named(stories: str | None, heldout: str | None) -> str:
    """12 hex digits over what the stories are: the bytes of the files, wherever they lie, or the built-in ones."""
    files = [hashlib.sha256(Path(each).read_bytes()).hexdigest() if each else None for each in (stories, heldout)]
    built_in = None if stories else source(None)
    return hashlib.sha256(repr((files, built_in, VOCABULARY, "curve-1")).encode()).hexdigest()[:12]


def prepared(stories: str | None, heldout: str | None) -> Path:
    """A folder with the datasets of ours (split, tokenizer, tokens), and tok2048/ as llama2.c's loader reads it."""
    from bench.encode import tokenizer_for
    from lib.stages.tokens import STAGE, TokensConfig, tokens
    from lib.store import build
    from lib.text.tokenizer import Tokenizer

    folder = Path(tempfile.gettempdir()) / "storymill-bench" / named(stories, heldout)
    if (folder / "handle.json").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    os.environ["STORYMILL_DATA"] = str(folder / "data")
    texts = source(stories)
    held_out = source(heldout) if heldout else texts[::20]
    train = texts if heldout else [text for n, text in enumerate(texts) if n % 20]
    tokenizer = tokenizer_for(train, VOCABULARY)
    made = build(STAGE, TokensConfig(layout="pretrain"), {"stories": _split(train), "tokenizer": tokenizer}, tokens)
    _shards(folder, Tokenizer.load(tokenizer.file("tokenizer.model")), train, held_out)
    (folder / "handle.json").write_text(made.model_dump_json())
    return folder


def _split(train: list[str]):
    import pyarrow as pa

    from lib.store import Config, Draft, Stage, build
    from lib.store.schemas import SPLIT

    class Given(Config):
        count: int = len(train)

    def fill(draft: Draft, config: Given) -> None:
        rows = [{"story_id": f"s{n}", "text": text, "split": "train"} for n, text in enumerate(train)]
        draft.write_table("part-00000.parquet", pa.Table.from_pylist(rows, schema=SPLIT))

    return build(Stage("split", 1), Given(), {}, fill)


def _shards(folder: Path, tokenizer: Any, train: list[str], held_out: list[str]) -> None:
    """llama2.c's files: uint16, BOS before each story, no EOS; the first shard is its test split."""
    import numpy as np

    shards = folder / f"tok{VOCABULARY}"
    shards.mkdir(parents=True)
    for name, texts in (("data00", held_out), ("data01", train)):
        ids = [each for text in texts for each in (tokenizer.bos_id, *tokenizer.encode(text))]
        np.array(ids, np.uint16).tofile(shards / f"{name}.bin")
    rows = [{"ids": tokenizer.encode(text), "bytes": len(text.encode())} for text in held_out]
    (folder / "heldout.json").write_text(json.dumps(rows))


def bits_per_byte(folder: Path, logits_of: Callable[[Any], Any], end: int) -> float:
    """Of the held-out stories; `logits_of(ids_BT)` gives logits_BTV, `end` is the id behind a story."""
    import torch

    from lib.model.network import IGNORE, nats_per_target

    nats, text_bytes = 0.0, 0.0
    stories = json.loads((folder / "heldout.json").read_text())
    with torch.no_grad():
        for start in range(0, len(stories), 16):
            batch = stories[start : start + 16]
            ids_BT = torch.zeros(len(batch), ROW, dtype=torch.long)
            targets_BT = torch.full_like(ids_BT, IGNORE)
            for b, story in enumerate(batch):
                whole = torch.tensor([1, *story["ids"], end])
                size = min(len(whole) - 1, ROW)
                ids_BT[b, :size], targets_BT[b, :size] = whole[:size], whole[1 : size + 1]
                text_bytes += story["bytes"] * size / (len(whole) - 1)
            nats += float(nats_per_target(logits_BTV=logits_of(ids_BT), targets_BT=targets_BT).double().sum())
    return nats / math.log(2) / text_bytes


def now(threads: int) -> float:
    """Seconds of `threads` cores that this process and the children it waited for have used."""
    used = os.times()
    return (used.user + used.system + used.children_user + used.children_system) / threads


def run(
    seconds: float, begun: float, threads: int, take_step: Callable[[int, int], None], look: Callable[[], float]
) -> dict:
    """Steps until `seconds` since `begun` are over, looks aside; take_step(number, of how many). The points."""
    points, times, steps, number, looking = [], [], 1_000_000, 0, 0.0
    while number < steps:
        started = now(threads)
        take_step(number, steps)
        number += 1
        times.append(now(threads) - started)
        spent = now(threads) - begun - looking
        if number == TRIAL:
            steps = max(TRIAL + int((seconds - spent) / median(times)), TRIAL + 1)
        if number == steps or (number > TRIAL and number % max(steps // LOOKS, 1) == 0):
            looked = now(threads)
            points.append({"minutes": spent / 60, "steps": number, "bits_per_byte": look()})
            looking += now(threads) - looked
    return {"points": points, "steps": steps}


def ours(folder: str, seconds: float, threads: int, changes: dict[str, Any]) -> Work:
    os.environ["STORYMILL_DATA"] = str(Path(folder) / "data")
    import torch

    from lib.model import compute
    from lib.model.batches import Batches, Corpus
    from lib.model.copying import start_copying
    from lib.model.network import Llama
    from lib.model.optim import Optimizer
    from lib.model.shape import Dimensions, Shape
    from lib.presets import laptop
    from lib.store import Dataset

    tokens = Dataset.model_validate_json((Path(folder) / "handle.json").read_text())
    base = laptop().pretrain.model_dump() | {"steps": 100_000, "threads": threads, "compile": "on"} | changes
    config = type(laptop().pretrain)(**base)
    packing = {"row_length": config.max_length, "batch_size": config.batch_size, "seed": config.seed}
    batches = Batches(corpus=Corpus(tokens=tokens, split="train"), **packing)
    shape = Shape(vocab_size=VOCABULARY, **{name: getattr(config, name) for name in Dimensions.model_fields})

    def work() -> dict[str, Any]:
        begun = now(threads)
        torch.manual_seed(config.seed)
        model = Llama(shape, config.dropout)
        start_copying(model, strength=config.copying)
        machine = compute.prepare(model=model, training=config, row_length=config.max_length)
        optimizer = Optimizer(model=model, training=config)

        def take_step(number: int, steps: int) -> None:
            optimizer.training = config.model_copy(update={"steps": steps})
            batch = batches.batch(number)
            optimizer.zero_grad()
            nats = machine.nats(batch.ids_BT, batch.document_BT, batch.targets_BT)
            (nats / batch.num_targets).backward()
            optimizer.step(number, loss=nats.item() / batch.num_targets, last_good=None)

        def look() -> float:
            written_out, model.explicit_attention = model.explicit_attention, False  # eager here: SDPA is faster
            try:
                return bits_per_byte(Path(folder), model, end=2)
            finally:
                model.explicit_attention = written_out

        return run(seconds, begun, threads, take_step, look)

    return work


def llama2c(folder: str, seconds: float, threads: int, checkout: str, rows: int = 32, lr: float = 1e-3) -> Work:
    sys.path.insert(0, checkout)
    import tinystories  # from the checkout
    import torch
    from model import ModelArgs, Transformer

    from lib.presets import laptop

    torch.set_num_threads(threads)
    tinystories.DATA_CACHE_DIR = folder
    same = laptop().pretrain
    shape = {"dim": same.d_model, "n_layers": same.n_layers, "n_heads": same.n_heads, "n_kv_heads": same.n_kv_heads}
    what = {"split": "train", "vocab_size": VOCABULARY, "vocab_source": "custom", "max_seq_len": ROW, "device": "cpu"}

    def work() -> dict[str, Any]:
        begun = now(threads)
        torch.manual_seed(1337)
        model = Transformer(ModelArgs(**shape, hidden_dim=same.d_ff, vocab_size=VOCABULARY, max_seq_len=ROW))
        optimizer, fast = model.configure_optimizers(0.1, lr, (0.9, 0.95), "cpu"), torch.compile(model)
        windows: Iterator[Any] = tinystories.Task.iter_batches(batch_size=rows, **what)

        def take_step(number: int, steps: int) -> None:
            warm_up = min(max(steps // 20, TRIAL), 1000)
            done = (number - warm_up) / max(steps - warm_up, 1)
            share = number / warm_up if number < warm_up else (1 + math.cos(math.pi * done)) / 2
            for group in optimizer.param_groups:
                group["lr"] = lr * share
            fast(*next(windows))
            model.last_loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        def look() -> float:
            return bits_per_byte(Path(folder), lambda ids: model(ids, ids), end=1)

        return run(seconds, begun, threads, take_step, look)

    return work


# ---- the table


def table(
    *,
    rounds: int,
    stories: str | None,
    llama2c: str | None,
    nanogpt: str | None,
    heldout: str | None = None,
    minutes: float = 15.0,
    out: str = ".",
    threads: int = 2,
) -> list[Row]:
    """One row, after about 1.6 times `minutes`. A curve is one run of each: `rounds` changes nothing here."""
    from lib.launch import MALLOC

    folder, found = str(prepared(stories, heldout)), {}
    for share in SHARES:
        what = {"folder": folder, "seconds": share * minutes * 60, "threads": threads, "changes": {}}
        case = Case("ours", "bench.curve", "ours", what, environment=MALLOC | IN_ONE, threads=threads)
        found[f"ours, {share * minutes:.1f} minutes"] = alone(case).figures["points"]
    if llama2c:
        what = {"folder": folder, "seconds": minutes * 60, "threads": threads, "checkout": llama2c}
        case = Case("llama2.c", "bench.curve", "llama2c", what, environment=IN_ONE, threads=threads)
        found["llama2.c"] = alone(case).figures["points"]
    _written(found, Path(out))
    ends = [points[-1] for name, points in found.items() if name.startswith("ours")]
    told = ", ".join(f"{end['bits_per_byte']:.3f} at {end['minutes']:.1f} min" for end in ends)
    if not llama2c:
        return [Row("time to bits per byte", told, "llama2.c", note="no folder given (--llama2c)")]
    peer = found["llama2.c"][-1]
    reached = [end["minutes"] for end in ends if end["bits_per_byte"] <= peer["bits_per_byte"]]
    ratio = peer["minutes"] / min(reached) if reached else 0.0
    figure = f"llama2.c {peer['bits_per_byte']:.3f} at {peer['minutes']:.1f} min"
    return [Row("time to bits per byte", told, figure, ratio, BAR, f"{Path(out) / 'curve.png'}")]


def _written(found: dict[str, list[dict[str, float]]], out: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    out.mkdir(parents=True, exist_ok=True)
    (out / "curve.json").write_text(json.dumps(found, indent=1) + "\n")
    figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
    for name, points in found.items():
        style = "k--" if name == "llama2.c" else "-"
        axes.plot([p["minutes"] for p in points], [p["bits_per_byte"] for p in points], style, marker="o", label=name)
    axes.set(xlabel="minutes of two cores", ylabel="bits per byte, held-out stories", xlim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(out / "curve.png", dpi=130)


def main(
    *,
    stories: str | None = None,
    heldout: str | None = None,
    llama2c: str | None = None,
    minutes: float = 15.0,
    out: str = ".",
    threads: int = 2,
) -> None:
    """Train both, write curve.json and curve.png, print the row."""
    from bench.beside import show

    peers = {"llama2c": llama2c, "nanogpt": None}
    show(table(rounds=1, stories=stories, heldout=heldout, minutes=minutes, out=out, threads=threads, **peers))


if __name__ == "__main__":
    from cyclopts import run as from_command_line

    from_command_line(main)
