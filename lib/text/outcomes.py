"""What an attempt to get a completion came to, in one word that decides what follows.

In:   the body of a 200, or the exception that the openai client raised; batches are read in lib/text/batch_outcomes.py
Out:  an Attempt with one of these statuses

    ok                                      an answer, though its content may still be unreadable
    refusal, truncated, filtered, empty     answered, but with no story: ask again a few times at most
    rate_limited, server_error, timeout,
    connection, malformed, too_large,
    expired (a batch did not come to it),
    lost (nobody knows what came of it)     may go away: wait, then try again
    unauthorized, forbidden, not_found,
    invalid_request, no_quota               will not go away: stop

Texts come whole, as the endpoint wrote them; lib/text/client.py takes the key out of them and cuts them, in that order.
"""

import json
import re
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2
import openai

FATAL = {  # status: what the user can do
    "unauthorized": "check that the key in OPENAI_API_KEY (or in the Prefect Secret block) belongs to this base URL",
    "forbidden": "the key is known but may not use this model or region; check its permissions",
    "not_found": "check the base URL (it usually ends in /v1) and the model's name",
    "invalid_request": "the endpoint does not take such a request; try other settings of structured, seeded, "
    "token_limit and temperature, and check the model's name",
    "no_quota": "the account's quota is used up; add credit, then run the same command again: nothing is asked twice",
}
FORMAT_NAMES = re.compile(r"response_?format|json_?schema|json_?object|structured[ _]output", re.IGNORECASE)
# HTTP statuses after which nothing was used: the endpoint refused the request, or broke down or had no room before it
# answered. All others leave it open: behind a gateway that gave up (408, 502, 504, 520 to 524) the reply may have been
# told and billed.
UNUSED = {400, 401, 402, 403, 404, 413, 422, 429, 500, 503, 529}


class TooLarge(Exception):
    """A reply longer than it may be."""


@dataclass(frozen=True)
class Attempt:
    """How one attempt went. What the client gives back is redacted, bounded, and can be stored as UTF-8."""

    status: str
    latency_ms: float = 0.0
    http_status: int | None = None
    model: str | None = None
    content: str | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    tokens_cached: int | None = None
    retry_after: float | None = None  # seconds
    error: str | None = None
    unsent: bool = False  # it never reached the endpoint

    @property
    def unbilled(self) -> bool:
        """Whether nothing was used for certain: refused before a word was told, or it never got there.

        A prompt or reply that a filter held back (Azure's 400 content_filter) was read, and is billed.
        """
        if self.status == "filtered":
            return False
        return self.unsent or self.status == "expired" or self.http_status in UNUSED


# ---- giving it a name


def completion(body: bytes, http_status: int) -> Attempt:
    """What a 200 says: a chat completion, or something malformed."""
    try:
        data = json.loads(body)
        choice = data["choices"][0]
        message, finish = choice["message"], choice.get("finish_reason")
        content, refusal = message.get("content"), message.get("refusal")
        status = {"length": "truncated", "content_filter": "filtered"}.get(finish, "ok")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        problem = f"not a chat completion ({type(error).__name__}: {error})"
        whole = body.decode("utf-8", "backslashreplace")
        return Attempt("malformed", http_status=http_status, content=whole, error=problem)
    if content is not None and not isinstance(content, str):
        return Attempt(
            "malformed", http_status=http_status, error=f"the content is a {type(content).__name__}, not text"
        )
    if refusal or finish == "refusal":
        status, content = "refusal", content or str(refusal)
    elif status == "ok" and not (content or "").strip():
        status = "empty"
    model = data.get("model")
    return Attempt(
        status,
        http_status=http_status,
        model=model if isinstance(model, str) else None,
        content=content or "",
        **_usage(data.get("usage")),
    )


def _usage(usage: Any) -> dict[str, int | None]:
    usage = usage if isinstance(usage, dict) else {}
    details = usage.get("prompt_tokens_details")
    found = {
        "tokens_in": usage.get("prompt_tokens"),
        "tokens_out": usage.get("completion_tokens"),
        "tokens_cached": details.get("cached_tokens") if isinstance(details, dict) else None,
    }
    return {name: n if type(n) is int and 0 <= n < 2**31 else None for name, n in found.items()}


def classify(error: Exception, deadline: float) -> Attempt:
    """What went wrong, in one word and one line."""
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, TooLarge):
        return Attempt("too_large", error=str(error))
    if isinstance(error, TimeoutError | openai.APITimeoutError):
        unsent = isinstance(error.__cause__, httpx2.ConnectTimeout | httpx2.PoolTimeout)
        return Attempt("timeout", error=f"no whole reply within {deadline:g} s", unsent=unsent)
    if isinstance(error, openai.APIStatusError):
        headers = error.response.headers
        return refused(error.status_code, str(error.code or ""), str(error.type or ""), error.message, headers)
    if isinstance(error, openai.APIConnectionError):
        cause = error.__cause__ or error
        unsent = isinstance(cause, httpx2.ConnectError)
        return Attempt("connection", error=f"{type(cause).__name__}: {cause}", unsent=unsent)
    return Attempt("malformed", error=text)


def refused(http_status: int, code: str, kind: str, message: str, headers: Any) -> Attempt:
    """What an endpoint means that answers with an HTTP error."""
    status = {401: "unauthorized", 403: "forbidden", 404: "not_found"}.get(http_status, "invalid_request")
    if http_status == 429:
        status = "no_quota" if "insufficient_quota" in (code, kind) else "rate_limited"
    elif http_status in (408, 409, 425) or http_status >= 500:
        status = "server_error"
    elif code in ("content_filter", "content_policy_violation"):
        return Attempt("filtered", http_status=http_status, content="", error=code)
    # OpenAI's 401 spells out part of the key, so nothing of such a text is kept but its code
    text = f"{code} {kind}".strip() if http_status in (401, 403) else message
    return Attempt(status, http_status=http_status, retry_after=_retry_after(headers), error=text)


def refuses_format(attempt: Attempt) -> bool:
    """Whether the endpoint says that it cannot have the reply's format decided for it."""
    return attempt.status == "invalid_request" and bool(FORMAT_NAMES.search(attempt.error or ""))


def _retry_after(headers: Any) -> float | None:
    """Seconds to wait, as the endpoint states them: in milliseconds, in seconds, or as a date."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) * unit
        except ValueError:
            try:
                seconds = parsedate_to_datetime(value).timestamp() - time.time()  # a date says nothing else
            except (ValueError, OverflowError, TypeError):  # whatever somebody may write there
                continue
        if 0 <= seconds < 1e7:
            return round(seconds, 3)
    return None
