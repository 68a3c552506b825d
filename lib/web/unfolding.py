"""Unfolding: ids in, as they come; text out, as soon as it can no longer change.

In:   a function that decodes ids; the ids that stand before, where the text goes on from them; ids; stop strings
Out:  pieces of text that join to what decoding everything at once gives, cut before the first stop string
On:   decoders that read from left to right: after a whole character, what came before does not matter

Decoding the whole story at every id takes a time that grows with its square; only its last ids are decoded here.
"""

from collections.abc import Callable, Sequence

REPLACEMENT = "\ufffd"  # what bytes decode to while their character is not whole yet
WINDOW = 16  # ids; past so many, the window starts again at the last place where the text was certain


class Unfolding:
    """The text of one row. `found`: a stop string came; nothing is told after it."""

    def __init__(
        self, decode: Callable[[list[int]], str], before: Sequence[int] = (), stops: Sequence[str] = ()
    ) -> None:
        self.decode, self.stops = decode, stops
        self.found = False
        self._ids = list(before)
        self._told = len(decode(self._ids)) if before else 0  # characters of the window that were taken
        self._certain = 0  # where in the window the text was last certain
        self._held = ""  # taken, but perhaps the beginning of a stop string

    def add(self, pieces: Sequence[int]) -> str:
        """What is certain now and was not before."""
        self._ids += pieces
        text = self.decode(self._ids)
        if text.endswith(REPLACEMENT):
            return self._tell(text[self._told :], whole=False)
        new, self._told = text[self._told :], len(text)
        if len(self._ids) > WINDOW and self._certain:
            tail = self._ids[self._certain :]
            head = self.decode(tail)
            if head and text.endswith(head):  # a window of control pieces alone would lose the blank behind them
                self._ids, self._told = tail, len(head)
        self._certain = len(self._ids)
        return self._tell(new)

    def rest(self) -> str:
        """What was held back, once no more ids come."""
        new = "" if self.found else self._held + self.decode(self._ids)[self._told :]
        self._held, self._told = "", len(self.decode(self._ids))
        return new

    def _tell(self, new: str, whole: bool = True) -> str:
        """`new` joins what is held; `whole` False: it may still change, and only a stop string in it counts."""
        text = self._held + new
        end, self.found = stop_at(text, self.stops, 0)
        if not whole and not self.found:
            return ""
        self._held = "" if self.found else text[end:]
        return text[:end]


def stop_at(text: str, stops: Sequence[str], start: int) -> tuple[int, bool]:
    """How far `text` is certain from `start` on, and whether a stop string was found there (it is left out).

    The end is held back while it may be the beginning of a stop string.
    """
    hits = [at for stop in stops if (at := text.find(stop, start)) >= 0]
    if hits:
        return min(hits), True
    held = max((n for stop in stops for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0)
    return max(start, len(text) - held), False
