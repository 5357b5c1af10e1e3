"""A log in a file: turned over by size and by time, a bounded number kept, nobody else's.

Each process writes a file of its own, named after it. So none waits for another's lock, none
renames what another writes, and the log of a process that hangs is whole up to that moment.
Whoever else turns files over (logrotate) may do so at any time, by renaming or with SIGHUP.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import signal
import sys
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO, Final

MOST_ALIKE: Final = 64
"""Processes of one name that write beside each other; each takes the first free number."""

COMPLAIN_EVERY_S: Final = 60.0


class LogFileError(Exception):
    """The log cannot be written where it was wanted."""


@dataclass(frozen=True, slots=True)
class LogFileTerms:
    """Where the log goes. ``path``: the process's name goes in before its ending.

    ``most_bytes``, ``every_s``: how large and how old a file gets before it is turned over; 0: that
    is no reason. ``keep``: older files that are kept.
    """

    path: Path
    most_bytes: int
    every_s: float
    keep: int

    def file_of(self, process: str, number: int = 1) -> Path:
        """Return a process's own file; the second of the same name has a 2, and so on."""
        alike = "" if number == 1 else f"-{number}"
        return self.path.with_name(f"{self.path.stem}.{process}{alike}{self.path.suffix}")

    def files(self) -> list[Path]:
        """Return the files of every process, older ones not included."""
        found = self.path.parent.glob(f"{self.path.stem}.*{self.path.suffix}")
        return sorted(one for one in found if one.is_file())


class LogFile(logging.Handler):
    """Writes lines into this process's file. Raises LogFileError where that cannot be opened."""

    def __init__(self, terms: LogFileTerms, process: str) -> None:
        super().__init__()
        self._terms = terms
        self._lock_file, self.path = _own_file(terms, process)
        self._stream: IO[str] | None = None
        self._reopen_asked = False
        self._lost = 0
        self._complained_s = -float("inf")
        try:
            self._open()
        except OSError as error:
            raise LogFileError(f"log_file: {error}") from error

    def ask_to_reopen(self, *signal_and_frame: object) -> None:
        """Open the file anew before the next line; a signal's handler may do no more."""
        del signal_and_frame
        self._reopen_asked = True

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line. What cannot be written is counted, and said when it can be again."""
        line = self.format(record)
        try:
            self._bring_up()
            if self._lost:
                self._say_lost(record)
            self._write(line)
        except OSError as error:
            self._lost += 1
            self._complain(error)

    def close(self) -> None:
        """Close the file; another process may then have its name."""
        self._shut()
        os.close(self._lock_file)
        super().close()

    def _bring_up(self) -> None:
        """See to it that what is open is the file of that name, and that a line may go into it."""
        if self._stream is None or self._reopen_asked or not self._is_there():
            self._reopen_asked = False
            self._shut()
            self._open()
        if self._is_full():
            self._shut()
            self._turn_over()
            self._open()

    def _open(self) -> None:
        descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o640)
        self._stream = os.fdopen(descriptor, "a", encoding="utf-8", errors="replace")
        found = os.fstat(descriptor)
        if found.st_size and os.pread(descriptor, 1, found.st_size - 1) != b"\n":
            os.write(descriptor, b"\n")  # the last line was cut off, by a full disk or an end
        self._opened = (found.st_dev, found.st_ino)
        self._period = self._period_of(found.st_mtime if found.st_size else time.time())

    def _shut(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            with contextlib.suppress(OSError):  # what it still held is lost with the disk
                stream.close()

    def _is_there(self) -> bool:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return False
        return (found.st_dev, found.st_ino) == self._opened

    def _is_full(self) -> bool:
        assert self._stream is not None
        size = os.fstat(self._stream.fileno()).st_size
        if not size:
            self._period = self._period_of(time.time())
            return False
        too_large = 0 < self._terms.most_bytes <= size
        return too_large or self._period != self._period_of(time.time())

    def _period_of(self, at_s: float) -> int:
        """Return the number of the stretch of time in which a file is written."""
        return int(at_s // self._terms.every_s) if self._terms.every_s else 0

    def _turn_over(self) -> None:
        """Move each file up by one number; the last one is dropped."""
        names = [self.path, *(Path(f"{self.path}.{one}") for one in range(1, self._terms.keep + 1))]
        for newer, older in reversed(list(pairwise(names))):
            with contextlib.suppress(FileNotFoundError):
                newer.replace(older)
        if not self._terms.keep:
            self.path.unlink(missing_ok=True)
        for file in self.path.parent.glob(f"{self.path.name}.*"):  # of when more were kept
            number = file.name.removeprefix(f"{self.path.name}.")
            if number.isdecimal() and int(number) > self._terms.keep:
                file.unlink(missing_ok=True)

    def _write(self, line: str) -> None:
        assert self._stream is not None
        try:
            self._stream.write(f"{line}\n")
            self._stream.flush()
        except OSError:
            self._shut()  # half a line in its buffer must not be written later
            raise

    def _say_lost(self, record: logging.LogRecord) -> None:
        lost = logging.LogRecord(
            "forebay.log", logging.WARNING, record.pathname, 0, "log_lines_lost", None, None
        )
        lost.lines = self._lost
        self._write(self.format(lost))
        self._lost = 0

    def _complain(self, error: OSError) -> None:
        """Say on standard error, now and then, that lines are lost; never what was in them."""
        if (now_s := time.monotonic()) - self._complained_s >= COMPLAIN_EVERY_S:
            self._complained_s = now_s
            with contextlib.suppress(OSError, ValueError):
                sys.stderr.write(f"forebay: the log cannot be written: {error}\n")
                sys.stderr.flush()


def reopen_on_hangup(log_file: LogFile) -> None:
    """Have SIGHUP open the file anew, as those expect who turn logs over."""
    with contextlib.suppress(ValueError):  # not the main thread, so not a process of ours
        signal.signal(signal.SIGHUP, log_file.ask_to_reopen)


def _own_file(terms: LogFileTerms, process: str) -> tuple[int, Path]:
    """Return the first file of a process's name that nobody writes, and the lock on it."""
    try:
        terms.path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        for number in range(1, MOST_ALIKE + 1):
            file = terms.file_of(process, number)
            lock = os.open(file.with_name(f".{file.name}.lock"), os.O_RDWR | os.O_CREAT, 0o640)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                continue
            return lock, file
    except OSError as error:
        raise LogFileError(
            f"log_file: {error}. Let this user write there, or name another file"
        ) from error
    raise LogFileError(f"log_file: {MOST_ALIKE} processes named {process} write there already")
