"""Turns: one story at a time, a few waiting, the rest refused.

A laptop tells one story at full speed or several at none; a queue without an end would only hide that.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio


class Busy(Exception):
    """Too many are waiting already."""


class Turns:
    """`enter` and `leave` count who is inside; `turn` is held by one of them. For one event loop."""

    def __init__(self, waiting: int) -> None:
        self.most = waiting + 1
        self.inside = 0
        self._lock = anyio.Lock()

    def enter(self) -> None:
        if self.inside >= self.most:
            raise Busy(f"{self.inside} requests are being answered or waiting; try again in a few seconds")
        self.inside += 1

    def leave(self) -> None:
        self.inside -= 1

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        async with self._lock:
            yield
