"""A teacher for tests: a real HTTP server on the loopback whose answers are a function's.

with FakeTeacher(lambda request, times: completion("...")) as teacher:
    ... teacher.base_url ... teacher.calls
"""

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Answer:
    """What goes over the wire."""

    body: bytes | str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    drip: float = 0.0  # seconds between single bytes
    delay: float = 0.0  # seconds before the first byte
    cut: bool = False  # promise more bytes than come


def completion(content: str | None, finish: str = "stop", refusal: str | None = None, **more: Any) -> Answer:
    message = {"role": "assistant", "content": content, "refusal": refusal}
    usage = {"prompt_tokens": 100, "completion_tokens": 50, "prompt_tokens_details": {"cached_tokens": 40}}
    body = {"model": "fake-1", "choices": [{"index": 0, "finish_reason": finish, "message": message}], "usage": usage}
    return Answer(json.dumps(body | more))


def told(request: dict[str, Any]) -> Answer:
    """A story that depends on what was asked, and on the seed."""
    asked = request["messages"][-1]["content"]
    return completion(json.dumps({"story": f"Tim saw {asked} {request['seed']}.", "summary": "a story about Tim"}))


def failure(status: int, code: str = "", message: str = "no", **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(json.dumps({"error": {"message": message, "code": code, "type": code}}), status, named)


class FakeTeacher:
    """Answers every request with `answer(request, times)`; `times` counts equal requests from 1."""

    def __init__(self, answer: Callable[[dict[str, Any], int], Answer]) -> None:
        self._answer = answer
        self.calls: Counter[str] = Counter()  # by request body
        self.requests: list[dict[str, Any]] = []
        self.heads: list[str] = []  # in lower case

    def __enter__(self) -> "FakeTeacher":
        self._loop, started = asyncio.new_event_loop(), threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(started,))
        self._thread.start()
        assert started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _serve(self, started: threading.Event) -> None:
        async def main() -> None:
            self._stop = asyncio.Event()
            server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
            self.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
            started.set()
            await self._stop.wait()
            server.close()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

        self._loop.run_until_complete(main())
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                self.heads.append(head)
                length = int(head.split("content-length:")[1].split()[0]) if "content-length:" in head else 0
                await self._reply(head.split("\r\n")[0], await reader.readexactly(length), writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            return
        finally:
            writer.close()

    async def _reply(self, line: str, body: bytes, writer: asyncio.StreamWriter) -> None:
        request = json.loads(body) if body[:1] == b"{" else {"line": line, "sent": body.decode()}  # a file, or a GET
        key = json.dumps(request, sort_keys=True)
        self.calls[key] += 1
        self.requests.append(request)
        answer = self._answer(request, self.calls[key])
        data = answer.body.encode() if isinstance(answer.body, str) else answer.body
        headers = {"content-type": "application/json", "content-length": str(len(data) + answer.cut)} | answer.headers
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        await asyncio.sleep(answer.delay)
        writer.write(f"HTTP/1.1 {answer.status} X\r\n{lines}\r\n".encode())
        for chunk in [data[n : n + 1] for n in range(len(data))] if answer.drip else [data]:
            writer.write(chunk)
            await writer.drain()
            if answer.drip:
                await asyncio.sleep(answer.drip)
        if answer.cut:
            raise ConnectionError
