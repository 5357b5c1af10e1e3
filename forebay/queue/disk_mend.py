"""What is done about a disk that failed: no writes are taken until all is written anew.

What the kernel could not write is gone from its cache, and the next sync of the same file reports
success all the same. Only the server's memory is whole then, and new files written from it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

import redis
import structlog

log = structlog.get_logger(__name__)

PAUSE_MS: Final = 10_000
"""Renewed every second; it runs out by itself when our process has died."""

FIRST_RETRY_S: Final = 1.0
LAST_RETRY_S: Final = 300.0
"""Each rewrite that fails leaves a small file behind."""

TELL_EVERY_S: Final = 60.0


class Rarely:
    """Says whether to tell of something: the first time, and then at most once a minute."""

    def __init__(self) -> None:
        self._told_s: dict[str, float] = {}

    def now(self, what: str) -> bool:
        """Return whether it is time to tell of ``what``."""
        now = time.monotonic()
        if now - self._told_s.get(what, -TELL_EVERY_S) < TELL_EVERY_S:
            return False
        self._told_s[what] = now
        return True


class Mending:
    """Has the server write all that it holds into new files, after a sync failed.

    Until that is done its writers wait: a mend of milliseconds is a pause, a longer one is
    QueueUnavailableError at the door. A server that refuses writes by itself, because the disk is
    full, is told of; it tries again every second. ``client`` needs a short time-out.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._rarely = Rarely()
        self._rewrite: int | None = None
        self._retry_s = FIRST_RETRY_S
        self._not_before_s = 0.0
        self._full = False
        self.needed = False

    def begin(self, why: str) -> None:
        """Rely no more on what is in the files. A rewrite under way may be one of them."""
        if self._rarely.now("failed"):
            log.error("queue_disk_failed", reason=why)
        self.needed = True
        self._rewrite = None
        self._retry_s = FIRST_RETRY_S
        self._not_before_s = 0.0

    def close(self) -> None:
        """Hang up; the next step dials anew."""
        self._client.close()

    def step(self) -> None:
        """See how the server writes, and go on mending; to be called every second or more often."""
        try:
            if self.needed:
                self._client.client_pause(PAUSE_MS, all=False)
            self._look(self._client.info("persistence"))
        except redis.RedisError as error:
            # It is being started again, or its disk holds it up; a mend that is needed stays so.
            if self.needed and self._rarely.now("unmended"):
                log.error("queue_not_written_anew", reason=str(error))

    def _look(self, state: Mapping[str, Any]) -> None:
        refuses = state["aof_last_write_status"] != "ok"
        full = refuses and state["aof_buffer_length"] > 0
        self._tell_full(full)
        if refuses and not full and not self.needed:
            # A sync of the server's own failed, of a file that it closed. It will not try again.
            self.begin("the server could not sync a file")
        if self.needed and not full and not _writes_anew(state):
            self._go_on(state, refuses)

    def _tell_full(self, full: bool) -> None:
        if full and self._rarely.now("full"):
            log.error("queue_disk_full", mend="Free space: nothing is taken until there is some.")
        if self._full and not full:
            log.info("queue_disk_has_space")
        self._full = full

    def _go_on(self, state: Mapping[str, Any], refuses: bool) -> None:
        """Judge the rewrite that has ended, or begin one.

        Not with appended bytes held back in the server: it would write them into the new file too,
        behind a base that has their effect.
        """
        done, self._rewrite = self._rewrite, None
        if done is None:
            self._begin_rewrite(state["aof_rewrites"])
        elif state["aof_rewrites"] < done or state["aof_last_bgrewrite_status"] != "ok":
            log.error("queue_not_written_anew", reason="the server's log says why")
        elif not refuses:
            # Else the sync of the file that failed, which the server closed, told it so as well:
            # the next rewrite closes one that is well.
            self.needed = False
            self._client.client_unpause()
            log.info("queue_written_anew")

    def _begin_rewrite(self, so_far: int) -> None:
        now = time.monotonic()
        if now < self._not_before_s:
            return
        self._not_before_s = now + self._retry_s
        self._retry_s = min(2 * self._retry_s, LAST_RETRY_S)
        self._client.bgrewriteaof()
        self._rewrite = so_far + 1


def _writes_anew(state: Mapping[str, Any]) -> bool:
    return bool(state["aof_rewrite_in_progress"] or state["aof_rewrite_scheduled"])
