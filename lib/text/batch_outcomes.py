"""What a batch came to: each of its lines, and those that came back in none of its files.

In:   a line of an output or error file; the status of a batch, and what the endpoint says about it
Out:  Attempts, as for live requests (lib/text/outcomes.py). Whatever a line holds, reading it raises nothing: one bad
      line never holds up the answers beside it, which are paid for
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lib.text.ledger import LOST
from lib.text.outcomes import Attempt, completion, refused

FAILED = {  # code of a batch that was not taken: status, as an HTTP error; another code says that the lines are wrong
    "token_limit_exceeded": ("rate_limited", 429),  # too much in batches at a time: passes when some have ended
    "rate_limit_exceeded": ("rate_limited", 429),
    "server_error": ("server_error", 500),
    "internal_error": ("server_error", 500),
    "insufficient_quota": ("no_quota", 429),
    "billing_hard_limit_reached": ("no_quota", 429),
    "model_not_found": ("not_found", 404),
}


@dataclass(frozen=True)
class BatchEnd:
    """How a batch ended: the files that hold its lines, and what came of a line that is in none of them."""

    files: tuple[str, ...]
    otherwise: Attempt


def batch_line(line: bytes) -> tuple[str, Attempt]:
    """What one line of a batch's output or error file says: a custom_id ("" where there is none), and what came of it.

    A line that says nothing clear is `malformed`: its request may have been answered and billed.
    """
    try:
        said = _object(json.loads(line))
        name, attempt = said.get("custom_id"), _line_outcome(said, line)
    except (ValueError, RecursionError):  # no JSON, or nested too deeply to be taken apart
        return "", Attempt("malformed", error="no JSON")
    return name if isinstance(name, str) else "", attempt


def _line_outcome(said: dict[str, Any], line: bytes) -> Attempt:
    response, error = _object(said.get("response")), _object(said.get("error"))
    http_status, body = response.get("status_code"), response.get("body")
    if http_status == 200:
        return completion(json.dumps(body).encode(), 200)
    if type(http_status) is int and http_status >= 400:
        failed = _object(_object(body).get("error"))
        code, kind, message = (str(failed.get(name) or "") for name in ("code", "type", "message"))
        return refused(http_status, code, kind, message, {})
    if error:
        code = str(error.get("code") or "")
        return Attempt(
            "expired" if code == "batch_expired" else "server_error", http_status=500, error=f"batch: {code}"
        )
    return Attempt(
        "malformed", content=line.decode("utf-8", "backslashreplace"), error="neither a response nor an error"
    )


def batch_end(status: str, files: Iterable[str | None], errors: Sequence[tuple[str, str]]) -> BatchEnd | None:
    """How a batch with this status ended; None while it is on its way. `errors`: what the endpoint says, by code."""
    told = "; ".join(f"{code}: {message}" for code, message in errors) or f"batch {status}"
    match status:
        case "completed":  # a line of which nothing came back may have been answered
            otherwise = Attempt(LOST, error="the batch was completed, and this line is in none of its files")
        case "expired" | "cancelled":
            otherwise = Attempt("expired", error=told)
        case "failed":  # while it was looked through: nothing was answered, nothing is billed
            name, http_status = next((FAILED[code] for code, _ in errors if code in FAILED), ("invalid_request", 400))
            otherwise = Attempt(name if errors else "server_error", http_status=http_status, error=told)
        case _:
            return None
    return BatchEnd(tuple(each for each in files if each), otherwise)


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
