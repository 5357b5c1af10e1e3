"""Whom the supervisor ends for silence, and whom it lets be."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from forebay.ops.worker_status import Phase, WorkerStatus, write_status
from forebay.worker import replacing
from forebay.worker.child import Child, ChildSpec
from forebay.worker.replacing import Reason, end_when_silent

TICK_S, STALL_S = 0.02, 0.1


class Worker(Child):
    """A worker whose process is this one, told to end instead of ended."""

    def __init__(self) -> None:
        super().__init__(ChildSpec("w", (), {}))
        self.aborted = asyncio.Event()

    @property
    def pid(self) -> int | None:
        return os.getpid()

    async def abort(self, reason: str) -> None:
        assert reason == Reason.SILENT
        self.aborted.set()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replacing, "TICK_S", TICK_S)
    monkeypatch.setattr(replacing, "SILENCE_MARGIN_S", 0.1)


async def is_ended(worker: Worker, folder: Path, seconds: float = 2.0) -> bool:
    watching = asyncio.create_task(end_when_silent(worker, folder, STALL_S, 900.0))
    waiting = asyncio.create_task(worker.aborted.wait())
    await asyncio.wait([watching, waiting], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for one in (watching, waiting):
        one.cancel()
    return worker.aborted.is_set()


@pytest.mark.parametrize(
    ("phase", "held", "ended"),
    [
        (Phase.READY, 0, True),
        (Phase.WAITING, 0, True),
        (Phase.DRAINING, 3, True),
        (Phase.DRAINING, 0, False),  # it is about to end, which may take a while
        (Phase.LOADING, 0, False),
    ],
)
async def test_silence_counts_where_signs_of_life_are_due(
    tmp_path: Path, phase: Phase, held: int, ended: bool
) -> None:
    write_status(tmp_path, WorkerStatus("w", os.getpid(), phase, "m", held=held))
    assert await is_ended(Worker(), tmp_path, 30.0 if ended else 2.0) is ended


async def test_a_worker_that_is_being_stopped_is_not_called_silent(tmp_path: Path) -> None:
    write_status(tmp_path, WorkerStatus("w", os.getpid(), Phase.READY, "m"))
    worker = Worker()
    worker._stopping.set()
    assert not await is_ended(worker, tmp_path)
