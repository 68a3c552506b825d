"""The storyteller's batch API: files, batches of them, and the files that hold the answers. All in memory.

In:   a file of lines {custom_id, method, url, body}; how one request is answered
Out:  OpenAI's batch objects. A batch is in progress at the first look at it and has ended at the second
"""

import json
import secrets
from collections.abc import Callable
from typing import Any

from lib.text.storyteller.mischief import Mischief, happens
from lib.text.storyteller.wire import BadRequest, Reply

NOT_REACHED = {"code": "batch_expired", "message": "the batch expired before this request was reached"}


class Batches:
    """Every file and batch of one server."""

    def __init__(self, answer: Callable[[dict[str, Any]], Reply], seed: int, mischief: Mischief) -> None:
        self._answer, self._seed, self._mischief = answer, seed, mischief
        self._token = secrets.token_hex(4)  # ids of another server are never taken for ours
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}

    def upload(self, data: bytes) -> dict[str, Any]:
        file_id = self._stored(data)
        named = {"id": file_id, "object": "file", "bytes": len(data), "created_at": 0, "filename": "lines.jsonl"}
        return named | {"purpose": "batch", "status": "processed"}

    def create(self, request: dict[str, Any]) -> dict[str, Any]:
        if request.get("input_file_id") not in self.files:
            raise BadRequest(f"found no file {request.get('input_file_id')!r}; upload it first")
        batch_id = f"batch_{self._token}_{len(self.batches)}"
        kept = {key: request.get(key) for key in ("input_file_id", "endpoint", "completion_window", "metadata")}
        ends = {"output_file_id": None, "error_file_id": None, "errors": None}
        named = {"id": batch_id, "object": "batch", "created_at": 0, "status": "validating"}
        self.batches[batch_id] = named | kept | ends
        return self.batches[batch_id]

    def look(self, batch_id: str) -> dict[str, Any]:
        batch = self.batches.get(batch_id)
        if batch is None:
            raise BadRequest(f"there is no batch {batch_id!r}", 404)
        if batch["status"] == "validating":
            batch["status"] = "in_progress"
        elif batch["status"] == "in_progress":
            self._finish(batch)
        return batch

    def listed(self) -> dict[str, Any]:
        """The newest first, all on one page."""
        return {"object": "list", "data": list(reversed(self.batches.values())), "has_more": False}

    def content(self, file_id: str) -> bytes:
        if file_id not in self.files:
            raise BadRequest(f"there is no file {file_id!r}", 404)
        return self.files[file_id]

    def _finish(self, batch: dict[str, Any]) -> None:
        """Answer every line, or, where the batch expires, the first half of them."""
        lines = [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]
        expired = happens(self._mischief.batch_expired, self._seed, "batch_expired", len(self.batches))
        reached = len(lines) // 2 if expired else len(lines)
        outputs, errors = [], []
        for number, line in enumerate(lines):
            named = {"id": f"{batch['id']}-{number}", "custom_id": line["custom_id"]}
            if number >= reached:
                errors.append(named | {"response": None, "error": NOT_REACHED})
                continue
            reply = self._answer(line["body"])
            response = {"status_code": reply.status, "request_id": named["id"], "body": reply.body}
            (outputs if reply.status == 200 else errors).append(named | {"response": response, "error": None})
        batch["status"] = "expired" if expired else "completed"
        for name, found in (("output_file_id", outputs), ("error_file_id", errors)):
            batch[name] = self._stored("".join(json.dumps(each) + "\n" for each in found).encode()) if found else None

    def _stored(self, data: bytes) -> str:
        file_id = f"file-{self._token}-{len(self.files)}"
        self.files[file_id] = data
        return file_id
