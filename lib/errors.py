"""The kinds of end that a user may see, besides success.

    UserError        will not change by itself: bad input, a wrong key, a full disk. Never retried.
    TransientError   may go away: an unreachable teacher, a killed child process. Prefect retries it; the retry resumes.
    Stopped          asked for, as by a budget: nothing is wrong, everything so far is kept, and the same command goes
                     on. Never retried; in Prefect the run ends Cancelled; the command line's exit code is 3.

Each message says what was found, what was expected and what to do next, with values.
"""


class UserError(Exception):
    """Something only the user can mend."""


class TransientError(Exception):
    """Something that may be gone the next time."""


class Stopped(Exception):
    """A stop that was asked for; resumable."""
