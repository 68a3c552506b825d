"""The storyteller as an OpenAI-compatible endpoint: POST /v1/chat/completions, GET /v1/models, GET /stats.

In:   chat requests over HTTP on the loopback
Out:  stories; the same messages and seed always give the same story. A seeded story grammar, and every answer says so
Relies on: story.py (the grammar), mischief.py (faults on demand). Plain ASGI: no framework stands between, because the
      speed of generation is the speed of this module.
"""

import asyncio
import json
import random
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from lib.text.storyteller import MODEL, beats, words
from lib.text.storyteller.mischief import Mischief, happens, number, share
from lib.text.storyteller.story import Told, Wish, tell, written
from lib.text.storyteller.wish import wishes_of

NOTE = "seeded story grammar, not a language model"
REFUSAL = "I am sorry, but I cannot write this story."
TOKEN = re.compile(r"\w+|[^\w\s]")  # what usage counts: words and marks
NUM_COPIED = 25  # near copies are copies of this many stories, so that each gets several
Answer = tuple[int, dict[str, Any], list[tuple[bytes, bytes]]]  # status, body, extra headers


class BadRequest(Exception):
    """A request that we cannot read; its text goes back to the client with `status`."""

    def __init__(self, message: str, status: int = 400):
        super().__init__(message)
        self.status = status


class Storyteller:
    """The ASGI application. One process, one event loop: counters need no lock."""

    def __init__(self, seed: int = 0, mischief: Mischief | None = None):
        self.seed, self.mischief = seed, mischief or Mischief()
        self.status, self.faults, self.tokens = Counter[int](), Counter[str](), Counter[str]()
        self.asked, self.answered = Counter[str](), Counter[str]()

    async def __call__(
        self, scope: dict, receive: Callable[[], Awaitable[dict]], send: Callable[[dict], Awaitable[None]]
    ):
        path, method = scope["path"].removeprefix("/v1"), scope["method"]
        if (method, path) == ("POST", "/chat/completions"):
            status, body, headers = await self._complete(await _body(receive))
        elif (method, path) == ("GET", "/models"):
            model = {"id": MODEL, "object": "model", "created": 0, "owned_by": "storymill"}
            status, body, headers = 200, {"object": "list", "data": [model]}, []
        elif (method, path) == ("GET", "/stats"):
            status, body, headers = 200, self.stats(with_keys=b"keys" in scope["query_string"]), []
        else:
            status, body, headers = 404, _error(f"there is no {method} {scope['path']} here", "not_found"), []
        data = json.dumps(body).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(data)).encode()), *headers]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": data})

    def stats(self, with_keys: bool = False) -> dict[str, Any]:
        """What this server has seen; with `with_keys` also how often each distinct request was asked and answered."""
        seen = {
            "requests": self.status.total(),
            "answered": self.answered.total(),
            "by_status": {str(status): count for status, count in sorted(self.status.items())},
            "distinct": len(self.asked),
            "answered_again": sum(count - 1 for count in self.answered.values()),
            "prompt_tokens": self.tokens["prompt"],
            "completion_tokens": self.tokens["completion"],
            "faults": dict(sorted(self.faults.items())),
        }
        return seen | (
            {"keys": {key: [self.asked[key], self.answered[key]] for key in self.asked}} if with_keys else {}
        )

    async def _complete(self, raw: bytes) -> Answer:
        try:
            answer = self._answer(_request(raw))
        except BadRequest as error:
            answer = error.status, _error(str(error), "invalid_request_error"), []
        self.status[answer[0]] += 1
        if self.mischief.slow:
            await asyncio.sleep(self.mischief.slow)
        return answer

    def _answer(self, request: dict[str, Any]) -> Answer:
        key = f"{number(self.seed, json.dumps(request, sort_keys=True)):016x}"
        self.asked[key] += 1
        times, rates = self.asked[key], self.mischief
        if happens(rates.rate_limited, self.seed, key, "rate_limited", times):
            self.faults["rate_limited"] += 1
            wait = f"{rates.retry_after:g}".encode()
            return 429, _error("too many requests; slow down", "rate_limit_exceeded"), [(b"retry-after", wait)]
        if happens(rates.server_error, self.seed, key, "server_error", times):
            self.faults["server_error"] += 1
            return 500, _error("the storyteller lost its thread", "server_error"), []
        story_key = json.dumps([request["messages"], request.get("seed")], sort_keys=True)
        numbers = [number(self.seed, story_key, index) for index in range(request.get("n") or 1)]
        choices = [self._choice(request, key, each, index) for index, each in enumerate(numbers)]
        self.answered[key] += 1
        return 200, self._completion(request, key, choices), []

    def _completion(self, request: dict[str, Any], key: str, choices: list[dict]) -> dict[str, Any]:
        asked = sum(_num_tokens(str(message.get("content") or "")) for message in request["messages"])
        told = sum(_num_tokens(each["message"]["content"] or each["message"]["refusal"] or "") for each in choices)
        self.tokens.update(prompt=asked, completion=told)
        return {
            "id": f"chatcmpl-{key}",
            "object": "chat.completion",
            "created": 0,
            "model": MODEL,
            "system_fingerprint": NOTE,
            "choices": choices,
            "usage": {"prompt_tokens": asked, "completion_tokens": told, "total_tokens": asked + told},
        }

    def _choice(self, request: dict[str, Any], key: str, story_seed: int, index: int) -> dict[str, Any]:
        """One choice: the told story as the request wants it, or the fault that these rates give it."""
        rates, question = self.mischief, (self.seed, key, index, self.answered[key])
        told = self._told(request["messages"], story_seed)
        as_json = (request.get("response_format") or {}).get("type", "text") != "text"
        content = written(told, as_json)
        refusal, finish = None, "stop"
        if happens(rates.refusal, *question, "refusal"):
            self.faults["refusal"] += (
                1  # half of them as the API has it, half as plain text that only looks like an answer
            )
            content, refusal = (None, REFUSAL) if share(*question, "how") < 0.5 else (REFUSAL, None)
        elif happens(rates.malformed, *question, "malformed"):
            self.faults["malformed"] += 1
            content = content.replace('"summary": ', '"summary ', 1) if as_json else content[::-1]
        elif happens(rates.truncated, *question, "truncated"):
            self.faults["truncated"] += 1
            content, finish = content[: int(len(content) * (0.3 + share(*question, "where") / 2))], "length"
        most = request.get("max_completion_tokens") or request.get("max_tokens")
        if most and content and _num_tokens(content) > most:
            content, finish = content[: [match.end() for match in TOKEN.finditer(content)][most - 1]], "length"
        message = {"role": "assistant", "content": content, "refusal": refusal}
        return {"index": index, "message": message, "finish_reason": finish, "logprobs": None}

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


async def _body(receive: Callable[[], Awaitable[dict]]) -> bytes:
    raw, more = b"", True
    while more:
        event = await receive()
        raw, more = raw + event.get("body", b""), event.get("more_body", False)
    return raw


def _request(raw: bytes) -> dict[str, Any]:
    """The request, checked as far as we read it."""
    try:
        request = json.loads(raw)
    except ValueError as error:
        raise BadRequest(f"the body is not JSON: {error}") from error
    messages = request.get("messages") if isinstance(request, dict) else None
    if not isinstance(messages, list) or not messages or not all(isinstance(each, dict) for each in messages):
        raise BadRequest("found no list of messages, expected at least one")
    if request.get("model") != MODEL:
        raise BadRequest(f"found model {request.get('model')!r}, expected {MODEL!r}", 404)
    if request.get("stream"):
        raise BadRequest("found stream: true, but the storyteller tells whole stories only")
    return request


def _error(message: str, code: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": code, "code": code, "param": None}}


def _num_tokens(text: str) -> int:
    return len(TOKEN.findall(text))
