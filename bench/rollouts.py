"""Roll-outs, measured: 64 stories of 200 new tokens at temperature 1 from BOS, in tokens per CPU-second on one core.

In:   bench/storytellers.py: stories260K's shape, with its weights where they are at hand

    ours             Sampler.generate, log-probabilities included
    Hugging Face     generate, its cache of keys and values, do_sample without cuts
    llama2.c         `generate` of the checkout given by --llama2c: no cache
    plain            transformers' model asked again for the whole text at each token, Categorical, 10 rows, as
                     tinycatstories writes its roll-outs; without its second model and without its graph, which it keeps

The last two take half a minute, and run once. `nats` is the mean log-probability of what was drawn, under the
uncached network. Peers that draw from the same model agree on it but for the spread of their draws: a standard
error of 0.02 for 64 stories and 0.05 for the 10 of the plain loop.
"""

from collections.abc import Callable
from typing import Any

from bench.beside import Case, Measured, Row, alone, beside
from bench.storytellers import llama2c as checkout_model
from bench.storytellers import ours as our_model
from bench.storytellers import theirs

ROWS, NEW, FEW = 64, 200, 10
Work = Callable[[], dict[str, Any]]


def nats(ids_BT: Any) -> float:
    """Per token drawn after BOS."""
    import torch

    with torch.inference_mode():
        scores = our_model()(ids_BT[:, :-1]).log_softmax(-1)
    return float(-scores.gather(2, ids_BT[:, 1:, None]).mean())


def ours() -> Work:
    import torch

    from lib.model.sampling import Sampler

    torch.set_num_threads(1)
    model = our_model()
    Sampler(model).generate([[1]] * 2, max_new=5, stop_ids={-1})

    def work() -> dict[str, Any]:
        done = Sampler(model).generate([[1]] * ROWS, max_new=NEW, stop_ids={-1})
        return {"tokens": sum(len(each.ids) for each in done), "nats": -sum(sum(e.logprobs) for e in done) / ROWS / NEW}

    return work


def huggingface(rows: int = ROWS) -> Work:
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = theirs()
    how = {"do_sample": True, "top_k": 0, "top_p": 1.0, "temperature": 1.0}
    model.generate(torch.ones(2, 1, dtype=torch.long), max_new_tokens=5, **how)

    def work() -> dict[str, Any]:
        ids_BT = model.generate(torch.ones(rows, 1, dtype=torch.long), max_new_tokens=NEW, **how)
        return {"tokens": ids_BT[:, 1:].numel(), "ids": ids_BT.tolist()}

    return work


def llama2c(checkout: str) -> Work:
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = checkout_model(checkout)

    def work() -> dict[str, Any]:
        ids_BT = model.generate(torch.ones(ROWS, 1, dtype=torch.long), NEW)
        return {"tokens": ids_BT[:, 1:].numel(), "ids": ids_BT.tolist()}

    return work


def plain() -> Work:
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = theirs()

    @torch.no_grad()
    def work() -> dict[str, Any]:
        ids_BT = torch.ones(FEW, NEW + 1, dtype=torch.long)
        logprob_B = torch.zeros(FEW)
        for t in range(1, NEW + 1):
            logits_BV = model(ids_BT[:, :t]).logits[:, -1]
            drawing = torch.distributions.Categorical(logits_BV.softmax(-1))
            ids_BT[:, t] = drawing.sample()
            logprob_B += drawing.log_prob(ids_BT[:, t])
        return {"tokens": FEW * NEW, "ids": ids_BT.tolist()}

    return work


def rate(measured: Measured) -> float:
    return measured.figures["tokens"] / measured.cpu_s


def table(*, rounds: int, stories: str | None, llama2c: str | None, nanogpt: str | None) -> list[Row]:
    """Ours beside three ways to write the same roll-outs. `stories` and `nanogpt` are not needed."""
    import torch

    cases = [Case(name, __name__, name) for name in ("ours", "huggingface")]
    measured = beside(cases, rounds)
    measured["plain"] = alone(Case("plain", __name__, "plain"))
    if llama2c:
        measured["llama2.c"] = alone(Case("llama2.c", __name__, "llama2c", {"checkout": llama2c}))
    mine = rate(measured["ours"])
    rows = []
    for name, label, bar in (
        ("huggingface", "Hugging Face generate", 2.3),
        ("llama2.c", "llama2.c generate", 75.0),
        ("plain", "loop without cache", 75.0),
    ):
        if name not in measured:
            rows.append(Row("roll-outs", f"{mine:,.0f} tokens/CPU-s", label, note="no checkout given (--llama2c)"))
            continue
        peer = rate(measured[name])
        drawn = nats(torch.tensor(measured[name].figures["ids"]))
        note = f"nats a token {measured['ours'].figures['nats']:.3f} and {drawn:.3f}"
        rows.append(Row("roll-outs", f"{mine:,.0f} tokens/CPU-s", f"{label} {peer:,.0f}", mine / peer, bar, note))
    return rows
