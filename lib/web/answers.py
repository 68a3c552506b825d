"""Answers: stories on their way, as an OpenAI client wants to read them, whole or as server-sent events.

In:   an engine, what was asked, how many answers
Out:  the body of a response, or a stream of events; turns are given back however it ends
"""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

import anyio
from fastapi import Request
from fastapi.responses import StreamingResponse

from lib.web.engine import Asking, Engine, Telling
from lib.web.turns import Turns

DEADLINE_S = 120.0  # of one story, waiting included; a story takes a second


@dataclass(frozen=True)
class Shape:
    """What an answer looks like: a chat's or a completion's, streamed or whole, how many, with log-probabilities?"""

    kind: str  # chat.completion or text_completion
    decode: Callable[[list[int]], str]
    n: int
    stream: bool
    scored: bool

    @property
    def chat(self) -> bool:
        return self.kind == "chat.completion"

    def choice(self, place: int, text: str, telling: Telling) -> dict[str, Any]:
        body = {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        return {"index": place, **body, "logprobs": self.logprobs(telling, 0), "finish_reason": _finish(telling)}

    def chunk(self, place: int, text: str | None, told: int, telling: Telling) -> dict[str, Any]:
        """One event's choice; text None ends the answer. `told`: ids whose log-probabilities were told before."""
        body = {"delta": {"content": text} if text is not None else {}} if self.chat else {"text": text or ""}
        finish = _finish(telling) if text is None else None
        return {"index": place, **body, "logprobs": self.logprobs(telling, told), "finish_reason": finish}

    def logprobs(self, telling: Telling, told: int) -> dict[str, Any] | None:
        """Nats at the row's temperature, as the sampler gives them; an id's text is what it adds to the one before."""
        if not self.scored:
            return None
        ids = telling.begun + [piece for piece, _ in telling.scores]
        first = len(telling.begun) + told
        scores = [
            (self.decode(ids[max(at - 1, 0) : at + 1])[len(self.decode(ids[max(at - 1, 0) : at])) :], value)
            for at, (_, value) in enumerate(telling.scores[told:], first)
        ]
        if not self.chat:
            return {"tokens": [text for text, _ in scores], "token_logprobs": [value for _, value in scores]}
        more = {"top_logprobs": []}
        return {"content": [{"token": text, "logprob": v, "bytes": list(text.encode())} | more for text, v in scores]}


class Counted(StreamingResponse):
    """A stream that gives its turns back however it ends, also when it never began."""

    def __init__(self, content: AsyncIterator[str], turns: Turns, count: int) -> None:
        super().__init__(content, media_type="text/event-stream")
        self.turns, self.count = turns, count

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.turns.leave(self.count)


async def answer(engine: Engine, asking: Asking, shape: Shape, turns: Turns, http: Request) -> Any:
    """Stream, or gather the same stream. Raises Busy if there are too many on their way."""
    tellings = [engine.tell(replace(asking, number=number)) for number in range(shape.n)]
    head = {"id": f"story-{secrets.token_hex(8)}", "created": int(time.time()), "model": engine.name}
    turns.enter(shape.n)
    if shape.stream:
        return Counted(_events(tellings, head, shape), turns, shape.n)
    try:
        texts = await _gathered(tellings, http)
    finally:
        turns.leave(shape.n)
    choices = [shape.choice(n, text, telling) for n, (text, telling) in enumerate(zip(texts, tellings, strict=True))]
    about = {"usage": _usage(tellings), "storymill": _about(tellings[0]) | {"seed": asking.seed}}
    return head | {"object": shape.kind, "choices": choices} | about


async def _gathered(tellings: list[Telling], http: Request) -> list[str]:
    """Whole texts. A client that goes away ends them."""
    texts, deadline = [""] * len(tellings), anyio.current_time() + DEADLINE_S

    async def gather(place: int) -> None:
        texts[place] = "".join([piece async for piece in tellings[place].until(deadline)])

    async with anyio.create_task_group() as watched:

        async def watch() -> None:
            while not await http.is_disconnected():
                await anyio.sleep(0.2)
            watched.cancel_scope.cancel()

        watched.start_soon(watch)
        async with anyio.create_task_group() as gathering:
            for place in range(len(tellings)):
                gathering.start_soon(gather, place)
        watched.cancel_scope.cancel()
    return texts


async def _events(tellings: list[Telling], head: dict[str, Any], shape: Shape) -> AsyncIterator[str]:
    """Server-sent events in OpenAI's shape, those of several answers as they come, [DONE] last."""
    head = head | {"object": "chat.completion.chunk" if shape.chat else shape.kind}
    lines: asyncio.Queue[str | Exception | None] = asyncio.Queue(8)
    deadline, going = anyio.current_time() + DEADLINE_S, set(range(len(tellings)))

    def event(choice: dict[str, Any], **more: Any) -> str:
        return f"data: {json.dumps(head | {'choices': [choice]} | more, ensure_ascii=False)}\n\n"

    async def tell(place: int, telling: Telling) -> None:
        try:
            await lines.put(event(shape.chunk(place, "", 0, telling), storymill=_about(telling)))
            told = 0
            async with aclosing(telling.until(deadline)) as pieces:  # type: ignore[type-var]
                async for piece in pieces:
                    await lines.put(event(shape.chunk(place, piece, told, telling)))
                    told = telling.tokens
            going.remove(place)
            last = {} if going else {"usage": _usage(tellings)}
            await lines.put(event(shape.chunk(place, None, told, telling), **last))
            await lines.put(None)
        except Exception as error:  # raised below, where the response is
            await lines.put(error)

    tasks = [asyncio.create_task(tell(place, telling)) for place, telling in enumerate(tellings)]
    try:
        ended = 0
        while ended < len(tasks):
            line = await lines.get()
            if isinstance(line, Exception):
                raise line
            if line is None:
                ended += 1
            else:
                yield line
    finally:
        for task in tasks:
            task.cancel()
    yield "data: [DONE]\n\n"


def _finish(telling: Telling) -> str:
    return "stop" if telling.ended else "length"


def _about(telling: Telling) -> dict[str, Any]:
    return {"prompt": telling.prompt, "forgotten": telling.forgotten}


def _usage(tellings: list[Telling]) -> dict[str, int]:
    asked, told = tellings[0].prompt_tokens, sum(telling.tokens for telling in tellings)
    return {"prompt_tokens": asked, "completion_tokens": told, "total_tokens": asked + told}
