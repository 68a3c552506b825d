"""A paid teacher for tests: prices, every kind of fault, what the endpoint saw, what the ledger says."""

import json
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from lib import store
from lib.stages import generate
from lib.stages.generate import GenerateConfig
from lib.text import prompts
from lib.text.storyteller import Mischief
from lib.text.storyteller.mischief import UNDELIVERED

PRICES = {"price_in": 0.15, "price_cached": 0.075, "price_out": 0.6, "price_version": "2026-11"}
KINDS = ("rate_limited", "server_error", "unavailable", "garbled", "slow_drip", "cut", "oversized", "no_usage")
KINDS += ("malformed", "refusal", "truncated", "filtered", "empty")
EVERY_KIND = Mischief(**dict.fromkeys(KINDS, 0.2 / len(KINDS)), retry_after=0.01, drip_seconds=30.0)  # 20 % in all
UNKNOWN = (*UNDELIVERED, "no_usage")  # whose bill the client never sees


def config_for(base_url: str, count: int, **more) -> GenerateConfig:
    given = {"part_rows": 50, "reasks": 9, "backoff": 0.01, "tries": 12, "concurrency": 64, "deadline": 3.0} | PRICES
    return GenerateConfig(base_url=base_url, plan=prompts.PromptPlan(count=count), **given | more)


def build(config: GenerateConfig) -> store.Dataset:
    return store.build(generate.STAGE, config, {}, generate.generate)


def stats(base_url: str) -> dict:
    with urllib.request.urlopen(base_url.removesuffix("/v1") + "/stats?keys=1") as answer:
        return json.load(answer)


def ledger(query: str) -> tuple:
    return store.connect().execute(query).fetchone()


# Micro-dollars of an attempt whose tokens are known, at PRICES: what was cached is paid for at its own price, each
# attempt is rounded up, and what a double adds is rounded off first.
EXACT = "ceil(round(((tokens_in - tokens_cached) * 0.15 + tokens_cached * 0.075 + tokens_out * 0.6), 6))"
SPENT = "select sum(coalesce(cost_microdollars, reserved_microdollars)) from requests"


def billed(seen: dict) -> int:
    """What the endpoint would put on its bill, in micro-dollars, were it rounded up once an answer or less often."""
    total = {"prompt_tokens": 0, "completion_tokens": 0, "cached_tokens": 0}
    for bill in seen["bill"]["live"].values():
        total = {name: total[name] + bill[name] for name in total}
    new = total["prompt_tokens"] - total["cached_tokens"]
    return int(new * 0.15 + total["cached_tokens"] * 0.075 + total["completion_tokens"] * 0.6)


CHILD = """
import sys
from lib import store
from lib.stages import generate
config = generate.GenerateConfig.model_validate_json(sys.argv[1])
store.build(generate.STAGE, config, {}, generate.generate)
"""


def killed_after(config: GenerateConfig, moment) -> None:
    """Run this in a process of its own, and kill -9 it as soon as `moment()` is true."""
    child = subprocess.Popen([sys.executable, "-c", CHILD, config.model_dump_json()], cwd=Path(__file__).parent.parent)
    while not moment() and child.poll() is None:
        time.sleep(0.002)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
