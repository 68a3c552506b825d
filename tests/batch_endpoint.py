"""An endpoint with batches for tests: every batch is completed at once, and each answer can be spoilt on its way.

with FakeTeacher(BatchEndpoint(lines=torn)) as teacher: ...
"""

import json
from collections.abc import Callable
from typing import Any

from tests.teacher import Answer, told

Change = Callable[[int, Any], Any]  # the number of the batch, and what it is by rights


def same(_number: int, value: Any) -> Any:
    return value


class BatchEndpoint:
    """Files and batches. What is made of them passes through these functions."""

    def __init__(self, lines: Change = same, batch: Change = same, content: Change = same, upload: Change = same):
        self._lines, self._batch, self._content, self._upload = lines, batch, content, upload
        self.files: list[list[dict[str, Any]]] = []
        self.batches: list[dict[str, Any]] = []

    def __call__(self, request: dict[str, Any], times: int) -> Answer:
        match request.get("line", "").split("?")[0].split(" ")[:2]:
            case ["post", "/v1/files"]:
                sent = [json.loads(line) for line in request["sent"].splitlines() if line.startswith('{"custom_id"')]
                self.files.append(sent)
                number = len(self.files) - 1
                named = {"id": f"file-{number}", "object": "file", "bytes": 1, "created_at": 0, "filename": "x"}
                return self._upload(number, Answer(json.dumps(named | {"purpose": "batch", "status": "processed"})))
            case ["get", "/v1/batches"]:
                return Answer(json.dumps({"object": "list", "data": self.batches[::-1], "has_more": False}))
            case ["get", path] if path.endswith("/content"):
                number = int(path.split("-")[1].split("/")[0])
                lines = self._lines(number, [self._answered(each) for each in self.files[number]])
                return self._content(number, Answer("\n".join(lines)))
            case ["get", path]:
                return Answer(json.dumps(self.batches[int(path.rpartition("-")[2])]))
        if "messages" in request:
            return told(request)
        number = int(request["input_file_id"].rpartition("-")[2])
        named = {"id": f"batch-{len(self.batches)}", "object": "batch", "created_at": 0, "errors": None}
        ends = {"status": "completed", "output_file_id": f"file-{number}", "error_file_id": None}
        self.batches.append(self._batch(number, named | ends | request))
        return Answer(json.dumps(self.batches[-1]))

    def _answered(self, line: dict[str, Any]) -> str:
        body = json.loads(told(line["body"]).body)
        return json.dumps({"custom_id": line["custom_id"], "response": {"status_code": 200, "body": body}})
