"""One alignment update, measured: 64 stories of 100 tokens, ours beside the same as tinycatstories does it.

(Fewer stories where the loop would take more than half of the memory; the table says how many.)

In:   a network of about a million parameters with random weights, the same for both; an opening of six tokens
Out:  per case the CPU seconds of one update: write the stories, score them, take the seed form's gradient step

    ours            roll-outs through the cache, then one pass with a graph over whole stories (the stage's own code)
    tinycatstories  its loop, on our network: for every token the whole prefix again, through policy and reference, with
                    the graph of every one of these passes kept until the backward: 0.35 GB a story (measured on 8)

The loop is written out here from reinforce.py: that script is one run from its first line to its last, on CUDA alone,
of the 33M model it downloads, and has no function of it to import. No checkout is needed.

Both draw until a stop id or 100 tokens; the reward is the share of one token, so that no embedding model is measured.
"""

import os
from collections.abc import Callable
from typing import Any

from bench.beside import Case, Row, beside

STORIES, TOKENS, VOCABULARY, PROMPT = 64, 100, 2048, 6
BAR = 20.0
BYTES_A_STORY = 350_000_000  # the loop's graph over 100 tokens
Work = Callable[[], dict[str, Any]]


def _network() -> Any:
    import torch

    from lib.model.network import Llama
    from lib.model.shape import Shape

    torch.set_num_threads(1)
    torch.manual_seed(0)
    shape = Shape(vocab_size=VOCABULARY, d_model=128, n_layers=4, n_heads=4, n_kv_heads=4, d_ff=352, max_length=256)
    return Llama(shape)


def _prefixes(stories: int) -> list[list[int]]:
    return [[1, *range(10, 10 + PROMPT - 1)]] * stories


def ours(stories: int = STORIES, tokens: int = TOKENS) -> Work:
    import torch

    from lib.model import ascent
    from lib.model.aligning import Aligning
    from lib.model.rewards import Scores
    from lib.model.rollouts import Rollout
    from lib.model.sampling import Sampler

    policy, reference = _network(), _network().requires_grad_(False)
    config = Aligning(form="tinycatstories", max_new=tokens, samples_per_prompt=1, precision="fp32")
    climber = ascent.Climber(config, policy, reference, torch.float32, None)

    def work() -> dict[str, Any]:
        prefixes = _prefixes(stories)
        written = Sampler(policy).generate(prefixes, max_new=tokens, stop_ids={VOCABULARY - 1}, seed=0)
        rollouts = [Rollout("", prefix, each, "") for prefix, each in zip(prefixes, written, strict=True)]
        rewards = [each.ids.count(7) / len(each.ids) for each in written]
        ascent.step(climber, ascent.weigh(climber, rollouts, Scores(rewards, {})), update=0, epoch=0)
        return {"tokens": sum(len(each.ids) for each in written), "parameters": policy.shape.num_params}

    return work


def loop(stories: int = STORIES, tokens: int = TOKENS) -> Work:
    import torch

    policy, reference = _network(), _network().requires_grad_(False)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-5)
    stop, factor = VOCABULARY - 1, 6000.0

    def last_logprobs(model: Any, ids_BT: torch.Tensor) -> torch.Tensor:
        return model.output(model.hidden(ids_BT)[:, -1]).log_softmax(
            -1
        )  # kinder than the script, which takes every position's

    def work() -> dict[str, Any]:
        torch.manual_seed(0)
        ids_BT = torch.tensor(_prefixes(stories))
        active_B = torch.ones(stories, dtype=torch.bool)
        logp_B, kl_B, written = torch.zeros(stories), torch.zeros(stories), 0
        for _ in range(tokens):
            policy_BV = last_logprobs(policy, ids_BT)
            reference_BV = last_logprobs(reference, ids_BT)
            drawn_B = torch.multinomial(policy_BV.detach().exp(), 1)[:, 0]
            kl_now_B = (reference_BV.exp() * (reference_BV - policy_BV)).mean(-1)
            logp_B = logp_B + policy_BV.gather(1, drawn_B[:, None])[:, 0] * active_B
            kl_B = kl_B + kl_now_B * active_B
            written += int(active_B.sum())
            ids_BT = torch.cat([ids_BT, drawn_B.where(active_B, torch.tensor(stop))[:, None]], dim=1)
            active_B = active_B & (drawn_B != stop)
        reward_B = (ids_BT[:, PROMPT:] == 7).float().mean(1)
        loss = (-logp_B / tokens * reward_B).mean() + factor * (kl_B / tokens).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return {"tokens": written, "parameters": policy.shape.num_params}

    return work


def room() -> int:
    """Bytes that the loop may take: half of this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def table(
    *,
    rounds: int,
    stories: str | None = None,
    llama2c: str | None = None,
    nanogpt: str | None = None,
    count: int = STORIES,
    tokens: int = TOKENS,
) -> list[Row]:
    """Ours beside the loop. `stories`, `llama2c` and `nanogpt` are not needed."""
    count = min(count, max(room() // BYTES_A_STORY, 1))
    size = {"stories": count, "tokens": tokens}
    cases = [Case("ours", __name__, "ours", size), Case("loop", __name__, "loop", size)]
    measured = beside(cases, rounds)
    mine, theirs = measured["ours"], measured["loop"]
    figures = mine.figures
    note = (
        f"{count} stories, {figures['parameters']:,} parameters, random weights; {figures['tokens']:,} tokens, loop "
        f"{theirs.figures['tokens']:,}; memory {mine.peak_mb:,.0f} MB, the loop {theirs.peak_mb:,.0f} MB"
    )
    ratio = theirs.cpu_s / mine.cpu_s
    return [Row("update", f"{mine.cpu_s:.2f} CPU-s", f"tinycatstories' loop {theirs.cpu_s:.1f}", ratio, BAR, note)]
