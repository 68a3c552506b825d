"""Turns: how many answers may be on their way, written or waiting; the rest is refused.

Many are written together at little cost; a queue without an end would only hide that there are too many.
"""


class Busy(Exception):
    """Too many are on their way already."""


class Turns:
    """`enter` and `leave` count the answers inside. For one event loop."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.inside = 0

    def enter(self, count: int = 1) -> None:
        if self.inside + count > self.most:
            raise Busy(f"{self.inside} answers are being written or waiting; try again in a few seconds")
        self.inside += count

    def leave(self, count: int = 1) -> None:
        self.inside -= count
