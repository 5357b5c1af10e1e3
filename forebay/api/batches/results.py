"""What the lines of a running batch came to, on disk as it happens: a restart goes on from there.

Each holder of a batch writes a file of its own, so that one whose lease ran out while it slept
cannot garble its successor's. Of two results of a line the first read counts, once.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_NAME: Final = "results-*.jsonl"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a result lies, whether it is an answer, and the tokens it took (prompt, answer)."""

    path: Path
    offset: int
    size: int
    fine: bool
    tokens: tuple[int, int]


class ResultLog:
    """The results of one batch. Its methods block: call them in a thread. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self.places: dict[int, Place] = {}
        for path in sorted(folder.glob(_NAME)):
            self._read(path)
        self._path = folder / f"results-{secrets.token_hex(8)}.jsonl"
        self._file = self._path.open("ab")
        self.completed = sum(place.fine for place in self.places.values())
        self.prompt_tokens = sum(place.tokens[0] for place in self.places.values())
        self.answer_tokens = sum(place.tokens[1] for place in self.places.values())

    @property
    def failed(self) -> int:
        """Lines that came to an error."""
        return len(self.places) - self.completed

    def add(
        self, index: int, told: dict[str, Any], *, fine: bool, tokens: tuple[int, int] = (0, 0)
    ) -> None:
        """Keep a line's result, unless it has one."""
        head = json.dumps([index, fine, *tokens]).encode()
        body = json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode()
        with self._lock:
            if index in self.places:
                return
            at = self._file.tell() + len(head) + 1
            self._file.write(head + b"\t" + body + b"\n")
            self._file.flush()
            self.places[index] = Place(self._path, at, len(body), fine, tokens)
            self.completed += fine
            self.prompt_tokens += tokens[0]
            self.answer_tokens += tokens[1]

    def sync(self) -> None:
        """Make what was added survive a power loss."""
        with self._lock:
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._file.close()

    def of(self, *, fine: bool) -> Iterator[bytes]:
        """Yield the answers, or the errors, in the order of the input, each as a line."""
        for index in sorted(self.places):
            place = self.places[index]
            if place.fine is fine:
                with place.path.open("rb") as file:
                    file.seek(place.offset)
                    yield file.read(place.size) + b"\n"

    def _read(self, path: Path) -> None:
        offset = 0
        with path.open("rb") as file:
            for raw in file:
                if raw.endswith(b"\n"):  # else the writer was killed in the middle of it
                    self._note(path, offset, raw)
                offset += len(raw)

    def _note(self, path: Path, offset: int, raw: bytes) -> None:
        head, _, body = raw[:-1].partition(b"\t")
        try:
            index, fine, prompt, answer = json.loads(head)
        except ValueError:  # written while the disk was full; the line is answered again
            return
        place = Place(path, offset + len(head) + 1, len(body), fine, (prompt, answer))
        self.places.setdefault(index, place)
