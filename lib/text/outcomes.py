"""What an attempt to get a completion came to, in one word that decides what follows.

In:   the body of a 200, or the exception that the openai client raised
Out:  an Attempt with one of these statuses

    ok                                      an answer, though its content may still be unreadable
    refusal, truncated, filtered, empty     answered, but with no story: ask again a few times at most
    rate_limited, server_error, timeout,
    connection, malformed, too_large        may go away: wait, then try again
    unauthorized, forbidden, not_found,
    invalid_request, no_quota               will not go away: stop

Error texts are redacted: OpenAI's own message on a wrong key spells out part of that key.
"""

import json
import math
import re
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import openai

NO_STORY = ("refusal", "truncated", "filtered", "empty")
FATAL = {  # status: what the user can do
    "unauthorized": "check that the key in OPENAI_API_KEY (or in the Prefect Secret block) belongs to this base URL",
    "forbidden": "the key is known but may not use this model or region; check its permissions",
    "not_found": "check the base URL (it usually ends in /v1) and the model's name",
    "invalid_request": "the endpoint does not take such a request; try other settings of structured, seeded, "
    "token_limit and temperature, and check the model's name",
    "no_quota": "the account's quota is used up; add credit, then run the same command again: nothing is asked twice",
}
KEY_LIKE = re.compile(r"\bsk-[\w*.-]{4,}|(?<=provided: )\S+|(?<=Bearer )\S+")


class TooLarge(Exception):
    """A reply longer than it may be."""


@dataclass(frozen=True)
class Attempt:
    """How one attempt went. Texts are redacted and can be stored as UTF-8."""

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


@dataclass(frozen=True)
class Price:
    """Dollars per million tokens, which is micro-dollars per token."""

    tokens_in: float = 0.0
    tokens_out: float = 0.0
    tokens_cached: float | None = None  # None: as tokens_in
    version: str = ""

    def cost(self, attempt: Attempt) -> int | None:
        """Micro-dollars, rounded up; None where the endpoint did not say what it used."""
        if attempt.tokens_in is None or attempt.tokens_out is None:
            return None
        cached = min(attempt.tokens_cached or 0, attempt.tokens_in)
        per_cached = self.tokens_in if self.tokens_cached is None else self.tokens_cached
        used = (
            (attempt.tokens_in - cached) * self.tokens_in + cached * per_cached + attempt.tokens_out * self.tokens_out
        )
        return math.ceil(round(used, 6))


# ---- giving it a name


def completion(body: bytes, http_status: int) -> Attempt:
    """What a 200 says: a chat completion, or something malformed."""
    try:
        data = json.loads(body)
        choice = data["choices"][0]
        message, finish = choice["message"], choice.get("finish_reason")
        content, refusal = message.get("content"), message.get("refusal")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        start = body[:2000].decode("utf-8", "backslashreplace")
        problem = f"not a chat completion ({type(error).__name__}: {error})"
        return Attempt("malformed", http_status=http_status, content=start, error=problem)
    if content is not None and not isinstance(content, str):
        return Attempt(
            "malformed", http_status=http_status, error=f"the content is a {type(content).__name__}, not text"
        )
    status = {"length": "truncated", "content_filter": "filtered"}.get(finish, "ok")
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
    """What went wrong, in one word and one redacted line."""
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, TooLarge):
        return Attempt("too_large", error=str(error))
    if isinstance(error, TimeoutError | openai.APITimeoutError):
        return Attempt("timeout", error=f"no whole reply within {deadline:g} s")
    if isinstance(error, openai.APIStatusError):
        return _refused(error)
    if isinstance(error, openai.APIConnectionError):
        cause = error.__cause__ or error
        return Attempt("connection", error=KEY_LIKE.sub("<key>", f"{type(cause).__name__}: {cause}"))
    return Attempt("malformed", error=KEY_LIKE.sub("<key>", text))


def _refused(error: openai.APIStatusError) -> Attempt:
    code, kind = str(error.code or ""), str(error.type or "")
    status = {401: "unauthorized", 403: "forbidden", 404: "not_found"}.get(error.status_code, "invalid_request")
    if error.status_code == 429:
        status = "no_quota" if "insufficient_quota" in (code, kind) else "rate_limited"
    elif error.status_code in (408, 409, 425) or error.status_code >= 500:
        status = "server_error"
    elif code in ("content_filter", "content_policy_violation"):
        return Attempt("filtered", http_status=error.status_code, content="", error=code)
    # OpenAI's 401 spells out part of the key, so nothing of such a text is kept but its code
    text = f"{code} {kind}".strip() if error.status_code in (401, 403) else KEY_LIKE.sub("<key>", error.message)
    return Attempt(status, http_status=error.status_code, retry_after=_retry_after(error.response.headers), error=text)


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
            except ValueError:
                continue
        if 0 <= seconds < 1e7:
            return round(seconds, 3)
    return None
