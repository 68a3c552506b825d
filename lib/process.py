"""Child processes that never outlive their parent.

Training and serving hold memory and devices; a plain child of a killed parent would hold them for ever.
"""

import ctypes
import os
import signal
import subprocess
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h
PARENT = "STORYMILL_PARENT"


def environment(**more: str) -> dict[str, str]:
    """The environment for a child that calls `die_with_parent`."""
    return os.environ | {PARENT: str(os.getpid())} | more


def die_with_parent() -> None:
    """Called by a child first of all: when the process that started it is gone, however, the kernel kills this one."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if str(os.getppid()) != os.environ.get(PARENT, str(os.getppid())):
        sys.exit("the parent process is gone already")


def end(child: subprocess.Popen, grace_s: float = 10.0) -> None:
    """End a child that leads its own session, and everything it started: SIGTERM, then SIGKILL after `grace_s`."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        if child.poll() is None:
            os.killpg(child.pid, sign)
            try:
                child.wait(grace_s)
            except subprocess.TimeoutExpired:
                continue
