"""Guard: what stands between the browser and the server's pages.

In:   every HTTP request
Out:  403 for a Host or Origin that is not this server on the loopback (DNS rebinding, other sites' pages), 413 for a
      body that is too large, 415 for a POST that is not JSON (a form on another site cannot send JSON unasked);
      otherwise the page's own answer, with headers that forbid everything the page does not need
"""

import contextlib
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

MAX_BODY = 64 * 1024  # bytes; a prompt is at most a few hundred words
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")

Message = MutableMapping[str, Any]
App = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]


class TooLarge(Exception):
    """More body than MAX_BODY arrived, whatever its Content-Length said."""


class Guard:
    """ASGI middleware around the whole application."""

    def __init__(self, app: App, *, policy: str) -> None:
        self.app = app
        self.headers = [
            (b"content-security-policy", policy.encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"x-frame-options", b"DENY"),
            (b"referrer-policy", b"no-referrer"),
            (b"cross-origin-resource-policy", b"same-origin"),
            (b"cache-control", b"no-store"),
        ]

    async def __call__(self, scope: Message, receive: Callable, send: Callable) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def headed_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *self.headers]
            await send(message)

        if refusal := _refusal(scope):
            await _refuse(headed_send, *refusal)
            return
        body = _Body(receive)
        with contextlib.suppress(TooLarge):  # said below, once
            await self.app(scope, body.receive, body.unless_too_large(headed_send))
        if body.too_large:
            await _refuse(headed_send, 413, f"the body is larger than {MAX_BODY:,} bytes")


class _Body:
    """A request's body, counted as it comes: Content-Length may be missing, or lie."""

    def __init__(self, receive: Callable) -> None:
        self._receive = receive
        self._seen = 0

    @property
    def too_large(self) -> bool:
        return self._seen > MAX_BODY

    async def receive(self) -> Message:
        message = await self._receive()
        self._seen += len(message.get("body", b""))
        if self.too_large:
            raise TooLarge
        return message

    def unless_too_large(self, send: Callable) -> Callable:
        """FastAPI turns TooLarge into its own 400: that answer is left unsaid."""

        async def sent(message: Message) -> None:
            if not self.too_large:
                await send(message)

        return sent


def _refusal(scope: Message) -> tuple[int, str] | None:
    """Why this request goes no further, judged by its headers."""
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    host, origin = headers.get("host", ""), headers.get("origin")
    if host.removesuffix(f":{host.rpartition(':')[2]}") not in LOOPBACK and host not in LOOPBACK:
        return 403, f"found Host {host[:80]!r}, expected one of {', '.join(LOOPBACK)}: open the page by that name"
    if origin is not None and origin != f"http://{host}":
        return 403, f"found Origin {origin[:80]!r}, expected this server's own page"
    length = headers.get("content-length", "0")
    if not length.isdigit() or int(length) > MAX_BODY:
        return 413, f"the body is larger than {MAX_BODY:,} bytes"
    if scope["method"] == "POST" and headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        return 415, "expected Content-Type: application/json"
    return None


async def _refuse(send: Callable, status: int, text: str) -> None:
    body = json.dumps(
        {"error": {"message": text, "type": "invalid_request_error", "param": None, "code": status}}
    ).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
