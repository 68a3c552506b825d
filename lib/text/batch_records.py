"""What was handed over to be answered in a batch: written down before it goes out, gone once its answers are booked.

In:   requests that go out together
Out:  data/requests/batch-<key>.jsonl, the very lines that are uploaded, and batch-<key>.json, which says that they are
      on their way and, once the endpoint has named it, under which id

A batch lives for up to a day, longer than the process that sent it. The record takes the place of the ledger's intents:
whatever kills a run, the next one finds its batches, fetches what they hold, and asks for none of it again. `key` goes
out with the batch as metadata, so a batch that was created just before a kill is found again by it.
"""

import json
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lib.store.files import write_whole
from lib.text.budget import Price
from lib.text.ledger import folder_of

ENDPOINT = "/v1/chat/completions"


@dataclass
class Record:
    """One batch, handed over or about to be."""

    teacher: str
    base_url: str  # as the config has it
    price: Price
    key: str = field(default_factory=lambda: secrets.token_hex(10))
    batch_id: str | None = None

    def path(self, root: Path, suffix: str = "json") -> Path:
        return folder_of(root) / f"batch-{self.key}.{suffix}"

    def lines(self, root: Path) -> dict[str, dict[str, Any]]:
        """custom_id → payload."""
        text = self.path(root, "jsonl").read_text(encoding="utf-8")
        return {line["custom_id"]: line["body"] for line in map(json.loads, text.splitlines())}

    def write(self, root: Path) -> None:
        write_whole(self.path(root), json.dumps(asdict(self)).encode())

    def forget(self, root: Path) -> None:
        """Its answers are booked, or it never came to be. The record goes first: lines without one are nobody's."""
        self.path(root).unlink()
        self.path(root, "jsonl").unlink()


def prepare(root: Path, record: Record, payloads: Mapping[str, dict[str, Any]]) -> bytes:
    """Write a new record and its lines (custom_id → payload); gives the lines as they are uploaded."""
    lines = [
        json.dumps({"custom_id": each, "method": "POST", "url": ENDPOINT, "body": payload}, ensure_ascii=False)
        for each, payload in payloads.items()
    ]
    text = "".join(line + "\n" for line in lines).encode()
    write_whole(record.path(root, "jsonl"), text)
    record.write(root)
    return text


def pending(root: Path) -> Iterator[Record]:
    """Every batch that was not forgotten yet."""
    for path in sorted(folder_of(root).glob("batch-*.json")):
        try:
            found = json.loads(path.read_bytes())
        except FileNotFoundError:  # another process has booked it since it was listed
            continue
        yield Record(**found | {"price": Price(**found["price"])})


def waiting(root: Path) -> set[str]:
    """The ids of the requests that are inside a batch. Needs no lock: a batch that is booked meanwhile is left out."""
    inside: set[str] = set()
    for record in pending(root):
        try:
            inside.update(parted(name)[0] for name in record.lines(root))
        except FileNotFoundError:
            continue
    return inside


def custom_id(request_id: str, attempt: int) -> str:
    return f"{request_id}-{attempt}"


def parted(name: str) -> tuple[str, int]:
    """custom_id → request id and attempt."""
    request_id, _, attempt = name.rpartition("-")
    return request_id, int(attempt)
