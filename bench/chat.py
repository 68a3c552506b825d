"""Chat, measured: the first token of an answer, and tokens per second at 1, 8 and 64 requests at once, on one core.

In:   bench/storytellers.py; requests of unlike lengths, 200 new tokens at most, temperature 0.8, top-p 0.95

    ours             Engine.tell in a thread a request: the desk, the drawing, the text as it comes
    http             the same through the endpoint and a client in the same process, gathered
    Hugging Face     generate with the same settings, prompts padded on the left; one request streams its text

Tokens are those that were told; a story of ours that ends early makes room, and tells fewer. The first token is wall
time, the median of 30 answers after a warm one; the rest is CPU time of the whole process.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

from bench.beside import Case, Row, beside
from bench.storytellers import folder, theirs

NEW, ANSWERS = 200, 30
SUBJECTS = ("a cat", "a small dog who lost a ball", "the moon", "a girl and her grandmother in the forest", "rain")
HOW = {"temperature": 0.8, "top_p": 0.95}
Work = Callable[[], dict[str, Any]]


def _asked(count: int) -> list[Any]:
    from lib.web.engine import Asking

    # Openings: a model that was never taught requests goes on from them all the same.
    return [
        Asking(f"Once there was {SUBJECTS[n % 5]}.", "opening", max_tokens=NEW, seed=n, **HOW) for n in range(count)
    ]


def _engine() -> Any:
    import torch

    from lib.web.engine import Engine

    torch.set_num_threads(1)
    return Engine("aligned", folder())


def ours(at_once: int) -> Work:
    from concurrent.futures import ThreadPoolExecutor

    engine = _engine()
    "".join(engine.tell(_asked(1)[0]))

    def one(asking: Any) -> int:
        telling = engine.tell(asking)
        "".join(telling)
        return telling.tokens

    def work() -> dict[str, Any]:
        with ThreadPoolExecutor(at_once) as pool:
            return {"tokens": sum(pool.map(one, _asked(at_once)))}

    return work


def http(at_once: int) -> Work:
    import asyncio

    import httpx

    from lib.web.server import create_app

    app = create_app({"aligned": _engine()})

    async def ask(count: int) -> int:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:80", timeout=300) as client:
            bodies = [
                {"model": "aligned", "prompt": each.text, "max_tokens": NEW, "seed": each.seed, **HOW}
                for each in _asked(count)
            ]
            answers = await asyncio.gather(*(client.post("/v1/completions", json=body) for body in bodies))
        return sum(answer.json()["usage"]["completion_tokens"] for answer in answers)

    asyncio.run(ask(1))
    return lambda: {"tokens": asyncio.run(ask(at_once))}


def huggingface(at_once: int) -> Work:
    import torch

    engine, model = _engine(), theirs()
    decode = engine.tokenizer.decode
    how = {"do_sample": True, "top_k": 0, "max_new_tokens": NEW, **HOW}

    def padded() -> dict[str, Any]:
        prefixes = [engine.prefix(asking) for asking in _asked(at_once)]
        longest = max(map(len, prefixes))
        return {
            "input_ids": torch.tensor([[0] * (longest - len(p)) + p for p in prefixes]),
            "attention_mask": torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prefixes]),
        }

    def work() -> dict[str, Any]:
        given = padded()
        streamer = {"streamer": Streamed(decode)} if at_once == 1 else {}
        ids_BT = model.generate(**given, **how, **streamer)[:, given["input_ids"].shape[1] :]
        for row in ids_BT.tolist():
            decode(row)
        return {"tokens": ids_BT.numel()}

    work()
    return work


class Streamed:
    """What transformers' streamers do: the text so far, at each id. Notes when the first came."""

    def __init__(self, decode: Callable[[list[int]], str]) -> None:
        self.decode, self.ids, self.first, self.text = decode, [], 0.0, ""

    def put(self, value: Any) -> None:
        if value.dim() > 1:  # the prompt
            return
        self.ids.append(int(value))
        self.text = self.decode(self.ids)
        self.first = self.first or time.perf_counter()

    def end(self) -> None:
        pass


def first_ours() -> Work:
    engine = _engine()

    def work() -> dict[str, Any]:
        took = []
        for n, asking in enumerate(_asked(ANSWERS + 1)):
            begun = time.perf_counter()
            pieces = iter(engine.tell(asking))
            next(pieces)
            took += [time.perf_counter() - begun] if n else []
            pieces.close()
        return {"ms": 1000 * statistics.median(took)}

    return work


def first_huggingface() -> Work:
    import torch

    engine, model = _engine(), theirs()

    def work() -> dict[str, Any]:
        took = []
        for n, asking in enumerate(_asked(ANSWERS + 1)):
            begun, streamer = time.perf_counter(), Streamed(engine.tokenizer.decode)
            ids = torch.tensor([engine.prefix(asking)])
            model.generate(ids, do_sample=True, top_k=0, max_new_tokens=2, streamer=streamer, **HOW)
            took += [streamer.first - begun] if n else []
        return {"ms": 1000 * statistics.median(took)}

    return work


def table(*, rounds: int, stories: str | None, llama2c: str | None, nanogpt: str | None) -> list[Row]:
    """Ours beside Hugging Face's generate. The arguments but `rounds` are those of the other benches."""
    cases = [Case(f"first {name}", __name__, f"first_{name}") for name in ("ours", "huggingface")]
    sizes = (1, 8, 64)
    for size in sizes:
        cases += [Case(f"{who} {size}", __name__, who, {"at_once": size}) for who in ("ours", "http", "huggingface")]
    measured = beside(cases, rounds)
    mine, peer = (measured[f"first {who}"].figures["ms"] for who in ("ours", "huggingface"))
    rows = [Row("first token", f"{mine:.1f} ms", f"Hugging Face generate {peer:.1f} ms", peer / mine, 2.0)]
    for size in sizes:
        found = {who: measured[f"{who} {size}"] for who in ("ours", "http", "huggingface")}
        rate = {who: each.figures["tokens"] / each.cpu_s for who, each in found.items()}
        ratio = rate["ours"] / rate["huggingface"]
        note = f"through HTTP {rate['http']:,.0f}, {rate['http'] / rate['huggingface']:.1f}×"
        peer_says = f"Hugging Face generate {rate['huggingface']:,.0f}"
        rows.append(Row(f"{size} at once", f"{rate['ours']:,.0f} tokens/CPU-s", peer_says, ratio, 2.0, note))
    return rows
