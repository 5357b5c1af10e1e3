"""A child's leash: it ends when its parent does, even when the parent was killed with SIGKILL.

The supervisor holds the write end of a pipe that is the child's standard input. The pipe closes
with the supervisor, on every POSIX system; the child then stops in order, and by force if it
must.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import Final

FORCED_EXIT_CODE: Final = 70


def end_with_parent(grace_s: float) -> None:
    """Watch standard input; at its end send this process SIGTERM, and exit after ``grace_s``."""
    threading.Thread(
        target=_watch, args=(sys.stdin.fileno(), grace_s), name="leash", daemon=True
    ).start()


def _watch(descriptor: int, grace_s: float) -> None:
    while os.read(descriptor, 4096):
        pass  # the parent never writes; only the end of the pipe has a meaning
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace_s)
    os._exit(FORCED_EXIT_CODE)
