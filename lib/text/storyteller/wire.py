"""What goes over the wire: requests read and checked, replies sent as they should be, or lost on the way on purpose.

In:   ASGI events
Out:  a chat request as a dict, or BadRequest; a Reply as ASGI events
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

Receive, Send = Callable[[], Awaitable[dict]], Callable[[dict], Awaitable[None]]
OVERSIZED_BYTES, DRIPS = 5_000_000, 50


class BadRequest(Exception):
    """A request that we cannot read; its text goes back to the client with `status`."""

    def __init__(self, message: str, status: int = 400):
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Reply:
    """What a request is answered with. `lost`: the fault that keeps a good body from arriving whole, if any."""

    status: int
    body: dict[str, Any] | bytes
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    lost: str = ""


def error(message: str, code: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": code, "code": code, "param": None}}


async def body_of(receive: Receive) -> bytes:
    parts, more = [], True
    while more:
        event = await receive()
        parts.append(event.get("body", b""))
        more = event.get("more_body", False)
    return b"".join(parts)


def json_of(raw: bytes) -> dict[str, Any]:
    """The body, which has to be a JSON object."""
    try:
        request = json.loads(raw)
    except ValueError as fault:
        raise BadRequest(f"the body is not JSON: {fault}") from fault
    return request if isinstance(request, dict) else {}


def checked(request: dict[str, Any], model: str) -> dict[str, Any]:
    """A chat request, checked as far as we read it."""
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(each, dict) for each in messages):
        raise BadRequest("found no list of messages, expected at least one")
    if request.get("model") != model:
        raise BadRequest(f"found model {request.get('model')!r}, expected {model!r}", 404)
    if request.get("stream"):
        raise BadRequest("found stream: true, but the storyteller tells whole stories only")
    return request


def uploaded(raw: bytes, content_type: str) -> bytes:
    """The file in a multipart/form-data body."""
    boundary = content_type.partition("boundary=")[2].strip('"').encode()
    for part in raw.split(b"--" + boundary) if boundary else []:
        head, _, content = part.partition(b"\r\n\r\n")
        if b"filename=" in head:
            return content.removesuffix(b"\r\n")
    raise BadRequest("found no file in the form, expected one with purpose batch")


async def deliver(reply: Reply, receive: Receive, send: Send, drip_seconds: float) -> None:
    """Send a reply, or what its fault leaves of it."""
    data = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
    if reply.lost == "garbled":
        data = b"<html>" + data[:200] + b"</html>"
    elif reply.lost == "oversized":
        data += b" " * (OVERSIZED_BYTES - len(data))
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(data)).encode()), *reply.headers]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    if reply.lost == "cut":  # uvicorn closes a connection whose reply stays incomplete
        await send({"type": "http.response.body", "body": data[: len(data) // 2], "more_body": True})
        return
    if reply.lost == "slow_drip":
        data = await _drip(data, receive, send, drip_seconds)
    await send({"type": "http.response.body", "body": data})


async def _drip(data: bytes, receive: Receive, send: Send, seconds: float) -> bytes:
    """Send nearly all of it, slowly, for as long as the client stays; gives back the rest."""
    step, hung_up = len(data) // DRIPS, asyncio.ensure_future(receive())
    for start in range(0, DRIPS * step, step):
        await send({"type": "http.response.body", "body": data[start : start + step], "more_body": True})
        await asyncio.wait([hung_up], timeout=seconds / DRIPS)
        if hung_up.done():
            break
    hung_up.cancel()
    return data[DRIPS * step :]
