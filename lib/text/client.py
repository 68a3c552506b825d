"""One attempt at a chat completion: sent once, bounded in time and size, and given a name whatever happens.

In:   a payload of the OpenAI chat-completions API, a base URL, a key
Out:  an Attempt (lib/text/outcomes.py); of a batch's output, an Attempt per line

Relies on the openai client for connections, headers, proxies and errors, with its own retries off: it gives up on a
Retry-After above 120 s, retries a spent quota, and its timeout is per read, so that a reply that drips in never times
out (17.8 s seen under a timeout of 3). `post` with `cast_to=Response` is its documented low-level call: 0.9 ms of CPU a
request instead of the 1.8 ms of `chat.completions.create`, which builds pydantic objects that nobody reads.
"""

import asyncio
import json
import re
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import cache
from typing import Any

import httpx2
import openai
from openai.types import Batch

from lib.errors import UserError
from lib.text.outcomes import Attempt, TooLarge, batch_line, classify, completion
from lib.text.replies import storable

MAX_BYTES = 4_000_000  # of one reply; a story takes 2,000
MAX_FILE_BYTES = 2_000_000_000  # of a batch's output: 50,000 lines
FILE_SECONDS = 1800.0  # for one upload or download
# OpenAI's message on a wrong key spells out its beginning and its end.
KEY_LIKE = re.compile(r"\bsk-[\w*.-]{4,}|(?<=provided: )\S+|(?<=Bearer )\S+")
BATCH_KEY = "storymill"  # the name of our key in a batch's metadata
LOOPBACK = re.compile(r"https?://(127\.[\d.]+|localhost|\[::1\])([:/]|$)")


class Encoded(Exception):
    """A compressed reply, which was not asked for: a small one can unpack to gigabytes."""


class Client:
    """An endpoint and the connections to it. Close it when done."""

    def __init__(
        self, base_url: str, key: str, *, deadline: float, connections: int, max_bytes: int = MAX_BYTES
    ) -> None:
        if not key or not key.isascii() or not key.isprintable() or " " in key:
            raise UserError("the API key is empty or holds spaces, line ends or non-ASCII letters; set it again")
        self.deadline, self.max_bytes, self._key = deadline, max_bytes, key
        transport = openai.DefaultAsyncHttpxClient(
            limits=httpx2.Limits(max_connections=connections, max_keepalive_connections=connections),
            event_hooks={"response": [self._bound]},
            trust_env=not LOOPBACK.match(base_url),  # a proxy from the environment cannot reach this machine's loopback
            headers={"Accept-Encoding": "identity"},
            verify=_certificates(),
        )
        self._openai = openai.AsyncOpenAI(
            api_key=key, base_url=base_url, max_retries=0, timeout=deadline, http_client=transport
        )

    async def ask(self, payload: dict[str, Any]) -> Attempt:
        """Send `payload` once. Raises nothing that an endpoint or a network can cause."""
        started = time.monotonic()
        try:
            async with asyncio.timeout(self.deadline):
                response = await self._openai.post("/chat/completions", body=payload, cast_to=httpx2.Response)
            attempt = completion(response.content, response.status_code)
        except Exception as error:  # every one of them is named and goes into the ledger; cancelling passes through
            attempt = classify(error, self.deadline)
        return self._cleaned(replace(attempt, latency_ms=round((time.monotonic() - started) * 1000, 3)))

    async def close(self) -> None:
        await self._openai.close()

    # ---- batches; what goes wrong here is raised as the openai client raises it

    async def upload(self, name: str, lines: bytes) -> str:
        """The file id of these lines."""
        async with asyncio.timeout(FILE_SECONDS):
            return (await self._openai.files.create(file=(name, lines), purpose="batch", timeout=FILE_SECONDS)).id

    async def create_batch(self, file_id: str, key: str) -> str:
        """The id of a batch made of this file. `find_batch` finds it by `key`."""
        async with asyncio.timeout(self.deadline):
            made = await self._openai.batches.create(
                input_file_id=file_id,
                endpoint="/v1/chat/completions",
                completion_window="24h",
                metadata={BATCH_KEY: key},
            )
        return made.id

    async def find_batch(self, key: str) -> str | None:
        """The id of the batch that was created with this key; None where there is none."""
        try:
            async for each in self._openai.batches.list(limit=100):
                if (each.metadata or {}).get(BATCH_KEY) == key:
                    return each.id
        except openai.NotFoundError:  # an endpoint without batches
            return None
        return None

    async def batch(self, batch_id: str) -> Batch | None:
        """How a batch stands; None where the endpoint does not know it."""
        try:
            async with asyncio.timeout(self.deadline):
                return await self._openai.batches.retrieve(batch_id)
        except openai.NotFoundError:
            return None

    async def batch_lines(self, file_id: str) -> dict[str, Attempt]:
        """What a batch's output or error file says: custom_id → Attempt."""
        async with asyncio.timeout(FILE_SECONDS):
            content = (await self._openai.files.content(file_id, timeout=FILE_SECONDS)).content
        lines = [json.loads(line) for line in content.splitlines() if line.strip()]
        return {str(line["custom_id"]): self._cleaned(batch_line(line)) for line in lines}

    def _cleaned(self, attempt: Attempt) -> Attempt:
        """Fit to be kept: without the key, storable and bounded. First cleaned, then cut: half a key is still one."""
        told = attempt.status != "malformed"  # else the content is whatever came
        return replace(
            attempt,
            error=self._clean(attempt.error, 500, guess=True),
            content=self._clean(attempt.content, None if told else 2000, guess=not told),
            model=self._clean(attempt.model, 200),
        )

    def _clean(self, text: str | None, most: int | None = None, guess: bool = False) -> str | None:
        """`text` without the key (with `guess`, without what looks like any), and without what UTF-8 cannot hold."""
        if text is None:
            return None
        text = text.replace(self._key, "<key>") if len(self._key) > 7 else text
        return storable(KEY_LIKE.sub("<key>", text) if guess else text)[:most]

    async def _bound(self, response: httpx2.Response) -> None:
        if response.headers.get("content-encoding", "identity") != "identity":
            raise Encoded(
                f"the reply came as {response.headers['content-encoding']}, though only identity was asked for"
            )
        whole_file = response.request.url.path.endswith("/content")
        response.stream = _Bounded(response.stream, MAX_FILE_BYTES if whole_file else self.max_bytes)


@cache
def _certificates() -> ssl.SSLContext:
    """Reading the certificates takes 0.1 s; once is enough."""
    return httpx2.create_ssl_context()


class _Bounded(httpx2.AsyncByteStream):
    """A reply's body that breaks off when it grows too long."""

    def __init__(self, stream: Any, limit: int) -> None:
        self._stream, self._left, self._limit = stream, limit, limit

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            self._left -= len(chunk)
            if self._left < 0:
                raise TooLarge(f"the reply is longer than {self._limit:,} bytes")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()
