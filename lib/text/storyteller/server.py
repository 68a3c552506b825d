"""The storyteller as an OpenAI-compatible endpoint: /v1/chat/completions, /v1/models, /v1/files, /v1/batches, /stats.

In:   chat requests over HTTP on the loopback, one by one or in batches
Out:  stories; the same messages and seed always give the same story. A seeded story grammar, and every answer says so
Relies on: story.py (the grammar), mischief.py (faults on demand), wire.py (HTTP), batches.py. Plain ASGI: no framework
      stands between, because the speed of generation is the speed of this module.
"""

import asyncio
import json
import random
import re
from collections import Counter
from dataclasses import replace
from typing import Any

from lib.text.storyteller import MODEL, beats, instructions, words
from lib.text.storyteller.batches import Batches
from lib.text.storyteller.mischief import REFUSED, UNDELIVERED, UNTOLD, Mischief, happens, number, share
from lib.text.storyteller.story import Told, Wish, tell, written
from lib.text.storyteller.wire import (
    BadRequest,
    Receive,
    Reply,
    Send,
    body_of,
    checked,
    deliver,
    error,
    json_of,
    uploaded,
)
from lib.text.storyteller.wish import wishes_of

NOTE = "seeded story grammar, not a language model"
REFUSAL = "I am sorry, but I cannot write this story."
TOKEN = re.compile(r"\w+|[^\w\s]")  # what usage counts: words and marks
NUM_COPIED = 25  # near copies are copies of this many stories, so that each gets several


class Storyteller:
    """The ASGI application. One process, one event loop: counters need no lock."""

    def __init__(self, seed: int = 0, mischief: Mischief | None = None):
        self.seed, self.mischief = seed, mischief or Mischief()
        self.status, self.faults = Counter[int](), Counter[str]()
        self.asked, self.answered = Counter[str](), Counter[str]()
        self.bill: dict[str, dict[str, Counter[str]]] = {"live": {}, "batch": {}}  # transport, kind → tokens
        self._prefixes: set[str] = set()  # first messages seen: a second time they are cached
        self.batches = Batches(lambda request: self._reply(request, "batch"), seed, self.mischief)

    async def __call__(self, scope: dict, receive: Receive, send: Send):
        try:
            reply = await self._route(scope["method"], scope["path"].removeprefix("/v1"), scope, receive)
        except BadRequest as fault:
            reply = Reply(
                fault.status, error(str(fault), "not_found" if fault.status == 404 else "invalid_request_error")
            )
        await deliver(reply, receive, send, self.mischief.drip_seconds)

    async def _route(self, method: str, path: str, scope: dict, receive: Receive) -> Reply:
        head, _, rest = path.removeprefix("/").partition("/")
        match method, head, rest:
            case "POST", "chat", "completions":
                return await self._complete(await body_of(receive))
            case "GET", "models", "":
                model = {"id": MODEL, "object": "model", "created": 0, "owned_by": "storymill"}
                return Reply(200, {"object": "list", "data": [model]})
            case "GET", "stats", "":
                return Reply(200, self.stats(with_keys=b"keys" in scope["query_string"]))
            case "POST", "files", "":
                kind = dict(scope["headers"]).get(b"content-type", b"").decode()
                return Reply(200, self.batches.upload(uploaded(await body_of(receive), kind)))
            case "GET", "files", name if name.endswith("/content"):
                return Reply(200, self.batches.content(name.removesuffix("/content")))
            case "POST", "batches", "":
                return Reply(200, self.batches.create(json_of(await body_of(receive))))
            case "GET", "batches", "":
                return Reply(200, self.batches.listed())
            case "GET", "batches", name:
                return Reply(200, self.batches.look(name))
        raise BadRequest(f"there is no {method} {scope['path']} here", 404)

    def stats(self, with_keys: bool = False) -> dict[str, Any]:
        """What this server has seen; with `with_keys` also how often each distinct request was asked and answered.

        `bill` is what a paid API would send a bill for: tokens by transport and by what became of the answer.
        """
        total = sum((each for kinds in self.bill.values() for each in kinds.values()), Counter[str]())
        seen = {
            "requests": self.status.total(),
            "answered": self.answered.total(),
            "by_status": {str(status): count for status, count in sorted(self.status.items())},
            "distinct": len(self.asked),
            "answered_again": sum(count - 1 for count in self.answered.values()),
            "prompt_tokens": total["prompt_tokens"],
            "completion_tokens": total["completion_tokens"],
            "cached_tokens": total["cached_tokens"],
            "bill": self.bill,
            "faults": dict(sorted(self.faults.items())),
            "batches": len(self.batches.batches),
        }
        return seen | (
            {"keys": {key: [self.asked[key], self.answered[key]] for key in self.asked}} if with_keys else {}
        )

    async def _complete(self, raw: bytes) -> Reply:
        reply = self._reply(json_of(raw), "live")
        if self.mischief.slow:
            await asyncio.sleep(self.mischief.slow)
        return reply

    def _reply(self, request: dict[str, Any], transport: str) -> Reply:
        try:
            reply = self._answer(checked(request, MODEL), transport)
        except BadRequest as fault:
            reply = _bad(fault)
        self.status[reply.status] += 1
        return reply

    def _answer(self, request: dict[str, Any], transport: str) -> Reply:
        key = f"{number(self.seed, json.dumps(request, sort_keys=True)):016x}"
        self.asked[key] += 1
        times, rates = self.asked[key], self.mischief

        def befalls(fault: str) -> bool:
            return happens(getattr(rates, fault), self.seed, key, fault, times)

        if fault := next(filter(befalls, REFUSED), ""):
            self.faults[fault] += 1
            return self._refusal(fault)
        story_key = json.dumps([request["messages"], request.get("seed")], sort_keys=True)
        numbers = [number(self.seed, story_key, index) for index in range(request.get("n") or 1)]
        told = [self._choice(request, key, each, index) for index, each in enumerate(numbers)]
        lost = next(filter(befalls, (*UNDELIVERED, "no_usage") if transport == "live" else ("no_usage",)), "")
        self.faults.update([lost] if lost else [])
        body = self._completion(request, key, [choice for choice, _ in told], self._bill(transport, lost or told[0][1]))
        if lost == "no_usage":
            del body["usage"]
        self.answered[key] += lost not in UNDELIVERED
        return Reply(200, body, lost=lost)

    def _refusal(self, fault: str) -> Reply:
        if fault == "rate_limited":
            wait = f"{self.mischief.retry_after:g}".encode()
            return Reply(429, error("too many requests; slow down", "rate_limit_exceeded"), [(b"retry-after", wait)])
        if fault == "unavailable":
            return Reply(503, error("the storyteller is asleep", "unavailable"))
        return Reply(500, error("the storyteller lost its thread", "server_error"))

    def _bill(self, transport: str, kind: str) -> Counter[str]:
        """The counter of what such answers have used."""
        return self.bill[transport].setdefault(kind, Counter())

    def _completion(self, request: dict[str, Any], key: str, choices: list[dict], bill: Counter[str]) -> dict[str, Any]:
        counts = [_num_tokens(str(message.get("content") or "")) for message in request["messages"]]
        prefix, asked = str(request["messages"][0].get("content")), sum(counts)
        cached = counts[0] if prefix in self._prefixes else 0
        self._prefixes.add(prefix)
        told = sum(_num_tokens(each["message"]["content"] or each["message"]["refusal"] or "") for each in choices)
        bill.update(answers=1, prompt_tokens=asked, completion_tokens=told, cached_tokens=cached)
        return {
            "id": f"chatcmpl-{key}",
            "object": "chat.completion",
            "created": 0,
            "model": MODEL,
            "system_fingerprint": NOTE,
            "choices": choices,
            "usage": {
                "prompt_tokens": asked,
                "completion_tokens": told,
                "total_tokens": asked + told,
                "prompt_tokens_details": {"cached_tokens": cached},
            },
        }

    def _choice(self, request: dict[str, Any], key: str, story_seed: int, index: int) -> tuple[dict[str, Any], str]:
        """One choice, the told story as the request wants it, or the fault that these rates give it; and which."""
        question = (self.seed, key, index, self.answered[key])
        told = self._told(request["messages"], story_seed)
        as_json = (request.get("response_format") or {}).get("type", "text") != "text"
        content = written(told, as_json)
        if tasks := instructions.asked(request["messages"]):
            content = instructions.answer(tasks, story_seed, as_json)
        refusal, finish = None, "stop"
        kind = next((each for each in UNTOLD if happens(getattr(self.mischief, each), *question, each)), "ok")
        self.faults.update([kind] if kind != "ok" else [])
        if kind == "refusal":  # half of them as the API has it, half as plain text that only looks like an answer
            content, refusal = (None, REFUSAL) if share(*question, "how") < 0.5 else (REFUSAL, None)
        elif kind == "malformed":
            content = content.replace('"summary": ', '"summary ', 1) if as_json else content[::-1]
        elif kind == "truncated":
            content, finish = content[: int(len(content) * (0.3 + share(*question, "where") / 2))], "length"
        elif kind == "filtered":
            content, finish = content[: len(content) // 3], "content_filter"
        elif kind == "empty":
            content = ""
        most = request.get("max_completion_tokens") or request.get("max_tokens")
        if most and content and _num_tokens(content) > most:
            content, finish = content[: [match.end() for match in TOKEN.finditer(content)][most - 1]], "length"
            kind = "truncated"
        message = {"role": "assistant", "content": content, "refusal": refusal}
        return {"index": index, "message": message, "finish_reason": finish, "logprobs": None}, kind

    def _told(self, messages: list[dict], story_seed: int) -> list[Told]:
        """The stories; a near copy or a planted concept depends on the request alone."""
        return [self._one(wish, seed) for wish, seed in wishes_of(messages, story_seed)]

    def _one(self, wish: Wish, story_seed: int) -> Told:
        if happens(self.mischief.near_copies, story_seed, "near_copies"):
            self.faults["near_copies"] += 1
            return near_copy(number(self.seed, "copied", number(story_seed, "which") % NUM_COPIED), story_seed)
        for concept, rate in self.mischief.planted.items():
            if happens(rate, story_seed, "planted", concept):
                self.faults[f"planted {concept}"] += 1
                wish = replace(wish, noun=concept)
        return tell(wish, story_seed)


def near_copy(original: int, copy: int) -> Told:
    """Story number `original` with one sentence more, about 5 % of its words, at a place that `copy` picks."""
    rng = random.Random(original)
    told = tell(Wish(*(rng.choice(words.listed(name)) for name in ("verbs", "nouns", "adjectives"))), original)
    rng = random.Random(copy)
    ends = [match.end() for match in re.finditer(r"\. (?=[A-Z])", told.story)]
    at = rng.choice(ends)
    return Told(f"{told.story[:at]}{rng.choice(beats.EXTRAS)} {told.story[at:]}", told.summary)


def _bad(fault: BadRequest) -> Reply:
    return Reply(fault.status, error(str(fault), "not_found" if fault.status == 404 else "invalid_request_error"))


def _num_tokens(text: str) -> int:
    return len(TOKEN.findall(text))
