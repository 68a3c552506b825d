"""One attempt at a chat completion: sent once, bounded in time and size, and given a name whatever happens.

In:   a payload of the OpenAI chat-completions API, a base URL, a key
Out:  an Attempt (lib/text/outcomes.py); of a batch's output, an Attempt per line; or Failed, which carries an Attempt.
      In none of them is the key, though an endpoint may write it into any text

Relies on the openai client for connections, headers, proxies and errors, with its own retries off: it gives up on a
Retry-After above 120 s, retries a spent quota, and its timeout is per read, so that a reply that drips in never times
out (17.8 s seen under a timeout of 3). `post` with `cast_to=Response` is its documented low-level call: 0.9 ms of CPU a
request instead of the 1.8 ms of `chat.completions.create`, which builds pydantic objects that nobody reads.
"""

import asyncio
import re
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cache
from typing import Any

import httpx2
import openai

from lib.errors import UserError
from lib.text.batch_outcomes import BatchEnd, batch_end, batch_line
from lib.text.ledger import LOST, storable
from lib.text.outcomes import Attempt, TooLarge, classify, completion

MAX_BYTES = 4_000_000  # of one reply; a story takes 2,000
MAX_FILE_BYTES = 2_000_000_000  # of a batch's output: 50,000 lines
MOST_PAGES = 100  # of the list of batches, 100 each, the newest first; some endpoints never say that it ends
FILE_SECONDS = 1800.0  # for one upload or download
# OpenAI's message on a wrong key spells out its beginning and its end.
KEY_LIKE = re.compile(r"\bsk-[\w*.-]{4,}|(?<=provided: )\S+|(?<=Bearer )\S+")
BATCH_KEY = "storymill"  # the name of our key in a batch's metadata
LOOPBACK = re.compile(r"https?://(127\.[\d.]+|localhost|\[::1\])([:/]|$)")


class Encoded(Exception):
    """A compressed reply, which was not asked for: a small one can unpack to gigabytes."""


class Failed(Exception):
    """A call about batches that came to nothing; `attempt` says how."""

    def __init__(self, attempt: Attempt) -> None:
        super().__init__(f"{attempt.status} ({attempt.error})")
        self.attempt = attempt


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
        """Send `payload` once. Whatever an endpoint or a network does is an Attempt; only faults of ours are raised."""
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

    # ---- batches; what goes wrong is raised as Failed

    async def upload(self, name: str, lines: bytes) -> str:
        """The file id of these lines."""
        async with self._call(FILE_SECONDS):
            return (await self._openai.files.create(file=(name, lines), purpose="batch", timeout=FILE_SECONDS)).id

    async def create_batch(self, file_id: str, key: str) -> str:
        """The id of a batch made of this file. `find_batch` finds it by `key`."""
        async with self._call(self.deadline):
            made = await self._openai.batches.create(
                input_file_id=file_id,
                endpoint="/v1/chat/completions",
                completion_window="24h",
                metadata={BATCH_KEY: key},
            )
            return made.id

    async def find_batch(self, key: str) -> str | None:
        """The id of the batch that was created with this key; None where there is none."""
        async with self._call(self.deadline):
            try:
                page = await self._openai.batches.list(limit=100)
                for _ in range(MOST_PAGES):
                    for each in page.data:
                        if (each.metadata or {}).get(BATCH_KEY) == key:
                            return each.id
                    if not page.has_next_page():
                        return None
                    page = await page.get_next_page()
            except openai.NotFoundError:  # an endpoint without batches
                return None
            raise LookupError(f"the list of batches does not end within {MOST_PAGES} pages, and {key} is not on them")

    async def batch(self, batch_id: str) -> BatchEnd | None:
        """How a batch ended; None while it is on its way."""
        async with self._call(self.deadline):
            try:
                batch = await self._openai.batches.retrieve(batch_id)
            except openai.NotFoundError:
                return BatchEnd((), self._cleaned(Attempt(LOST, error=f"the endpoint knows no batch {batch_id}")))
            errors = [(each.code or "", each.message or "") for each in (batch.errors and batch.errors.data) or []]
            end = batch_end(batch.status, (batch.output_file_id, batch.error_file_id), errors)
            return end and replace(end, otherwise=self._cleaned(end.otherwise))

    async def batch_lines(self, file_id: str) -> dict[str, Attempt] | None:
        """What a batch's output or error file says: custom_id → Attempt; None where there is no such file any more."""
        async with self._call(FILE_SECONDS):
            try:
                content = (await self._openai.files.content(file_id, timeout=FILE_SECONDS)).content
            except openai.NotFoundError:
                return None
        lines = (batch_line(line) for line in content.splitlines() if line.strip())
        return {name: self._cleaned(attempt) for name, attempt in lines if name}

    @asynccontextmanager
    async def _call(self, seconds: float) -> AsyncIterator[None]:
        """A call about batches, bounded in time. What goes wrong is named as every attempt's is, without the key."""
        try:
            async with asyncio.timeout(seconds):
                yield
        except Exception as error:
            raise Failed(self._cleaned(classify(error, seconds))) from None  # the error itself may spell out the key

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
