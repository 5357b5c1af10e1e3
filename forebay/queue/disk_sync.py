"""Brings what the private server has appended to the disk: once a second, on a thread of ours.

The server's own ``appendfsync everysec`` holds writes back while a sync is under way: on a slow
disk it acknowledges, for up to two seconds, what the kernel has not been given; a SIGKILL loses
that.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import structlog

from forebay.queue.disk_mend import Mending, Rarely

log = structlog.get_logger(__name__)

EVERY_S: Final = 1.0
MEND_EVERY_S: Final = 0.1
"""While writers wait for a mend, which usually takes milliseconds."""

SLOW_S: Final = 1.0
"""A sync that takes longer is told: so much more than the promise says is at risk on power loss."""

STOP_S: Final = 2.0

FULL_SYNC: Final = getattr(fcntl, "F_FULLFSYNC", None)
"""macOS: its ``fsync`` is content with the drive's own cache."""

Mark = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class DiskStatus:
    """What the disk did since the start: how many syncs, how many of them slow, how many failed."""

    syncs: int = 0
    slow: int = 0
    failed: int = 0


class DiskSync:
    """Syncs every file of a folder that has changed since it was last synced, and the folder.

    A sync begins a second after the last began, or when that one has ended. After one that failed
    nothing in the files is relied on: see ``Mending``.
    """

    def __init__(self, folder: Path, mending: Mending) -> None:
        self._folder = folder
        self._mending = mending
        self._synced: dict[str, Mark] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._rarely = Rarely()
        self.status = DiskStatus()

    def start(self) -> None:
        """Begin, unless it runs."""
        if self._thread is None:
            self._stop = threading.Event()
            # A sync cannot be interrupted: with a dead disk the process must still be able to end.
            self._thread = threading.Thread(
                target=self._run, args=(self._stop,), name="queue-disk-sync", daemon=True
            )
            self._thread.start()

    def stop(self) -> None:
        """End; a sync under way is waited for, for a while."""
        if self._thread is not None:
            self._stop.set()
            self._thread.join(STOP_S)
            self._thread = None
            self._mending.close()

    def _run(self, stop: threading.Event) -> None:
        wait_s = EVERY_S
        while not stop.wait(wait_s):
            began = time.monotonic()
            try:
                self._tick()
            except Exception:
                # Whatever it was, the next second's sync has to come: without it all is at risk.
                log.exception("queue_disk_sync_broke")
            every_s = MEND_EVERY_S if self._mending.needed else EVERY_S
            wait_s = max(0.0, began + every_s - time.monotonic())

    def _tick(self) -> None:
        if not self._mending.needed:
            self._sync_what_changed()
        self._mending.step()

    def _sync_what_changed(self) -> None:
        began = time.monotonic()
        trouble = ""
        try:
            here = self._look()
            if here == self._synced:
                return
            with self._telling_when_late():
                self._sync(here)
        except OSError as error:
            trouble = str(error) or repr(error)
        self._count(trouble, time.monotonic() - began)

    @contextmanager
    def _telling_when_late(self) -> Iterator[None]:
        """Tell of a slow block while it lasts: it may never end."""
        late = threading.Timer(SLOW_S, self._tell_slow)
        late.daemon = True
        late.start()
        try:
            yield
        finally:
            late.cancel()

    def _count(self, trouble: str, took_s: float) -> None:
        so_far = self.status
        self.status = replace(
            so_far,
            syncs=so_far.syncs + 1,
            slow=so_far.slow + (took_s > SLOW_S),
            failed=so_far.failed + bool(trouble),
        )
        if trouble:
            self._synced = {}
            self._mending.begin(trouble)

    def _tell_slow(self) -> None:
        if self._rarely.now("slow"):
            log.warning("queue_disk_slow", over_s=SLOW_S, folder=str(self._folder))

    def _sync(self, here: dict[str, Mark]) -> None:
        if not self._synced:
            sync_folder(self._folder.parent)  # where a folder that is new has its name
            with suppress(PermissionError):  # then it is not one that we have made
                sync_folder(self._folder.parent.parent)
        for name, mark in here.items():
            if self._synced.get(name) != mark:
                sync_file(self._folder / name)
        if here.keys() != self._synced.keys():
            sync_folder(self._folder)
        self._synced = here

    def _look(self) -> dict[str, Mark]:
        """Return what there is, with the sizes of now: what comes later is the next sync's."""
        here: dict[str, Mark] = {}
        try:
            with os.scandir(self._folder) as entries:
                for entry in entries:
                    about = entry.stat()
                    here[entry.name] = (about.st_ino, about.st_size, about.st_mtime_ns)
        except FileNotFoundError:
            pass  # not there yet; or a file went as a rewrite ended: the next look sees the rest
        return here


def sync_file(path: Path) -> None:
    """Bring a file's bytes to the disk; one that is gone is well. Raises OSError."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        _sync_data(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Bring a folder's names to the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_data(descriptor: int) -> None:
    if FULL_SYNC is not None:
        fcntl.fcntl(descriptor, FULL_SYNC)
    else:
        os.fdatasync(descriptor)
