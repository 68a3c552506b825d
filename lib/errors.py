"""The two kinds of error that a user may see.

    UserError        will not change by itself: bad input, a wrong key, a full disk. Never retried.
    TransientError   may go away: an unreachable teacher, a killed child process. Prefect retries it; the retry resumes.

Each message says what was found, what was expected and what to do next, with values.
"""


class UserError(Exception):
    """Something only the user can mend."""


class TransientError(Exception):
    """Something that may be gone the next time."""
