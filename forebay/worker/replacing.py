"""Ends workers that have fallen silent, and says why a worker was replaced."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from pathlib import Path
from typing import Final

import structlog

from forebay.core.stillness import Stillness
from forebay.ops.worker_status import Phase, WorkerStatus, read_status, status_mark
from forebay.worker.care import Cause
from forebay.worker.child import Child
from forebay.worker.exit_codes import ExitCode

log = structlog.get_logger("forebay.supervisor")

TICK_S: Final = 0.5

SILENCE_MARGIN_S: Final = 2.0
"""A worker that can still end itself says more of what hung, so it is given the first word."""


ENDING_S: Final = 60.0
"""What a worker that has drained has to end in, silent: a process of gigabytes, a busy machine."""


class Reason(StrEnum):
    """Why a worker's process was replaced. ``SILENT``: no sign of life, not even from its end.

    ``ASKED``: an administrator wanted it, and it had drained.
    The causes of care, by which a worker that is well is replaced, are among them.
    """

    SILENT = "silent"
    ENGINE_HUNG = "engine_hung"
    LOOP_HUNG = "loop_hung"
    ENGINE_BROKEN = "engine_broken"
    DIED = "died"
    ASKED = "asked"
    SCHEDULE = Cause.SCHEDULE.value
    MEMORY = Cause.MEMORY.value
    GPU_MEMORY = Cause.GPU_MEMORY.value
    AGE = Cause.AGE.value
    TASKS = Cause.TASKS.value


_OF_CODE: Final[dict[int, Reason]] = {
    ExitCode.ENGINE_HUNG: Reason.ENGINE_HUNG,
    ExitCode.LOOP_HUNG: Reason.LOOP_HUNG,
    ExitCode.ENGINE_BROKEN: Reason.ENGINE_BROKEN,
    ExitCode.ASKED: Reason.ASKED,
}


def reason_of(worker: Child) -> Reason:
    """Return why the worker's last life ended."""
    if worker.ended_for is not None:
        return Reason(worker.ended_for)
    code = worker.exit_code
    return Reason.DIED if code is None else _OF_CODE.get(code, Reason.DIED)


async def end_when_silent(worker: Child, run_dir: Path, stall_s: float, load_s: float) -> None:
    """Watch a worker for ever, and end every life of it that gives no sign for ``stall_s``.

    ``load_s``: what it has to load its model, during which it gives none.
    """
    silence = Stillness(TICK_S)
    clock = asyncio.get_running_loop().time
    while True:
        await asyncio.sleep(TICK_S)
        pid, name = worker.pid, worker.spec.name
        resting = pid is None or worker.stopping  # a stop has a time limit of its own
        mark = None if resting else (pid, status_mark(run_dir, name))
        silent_s = silence.see(mark, clock())
        limit_s = _limit_s(read_status(run_dir, name), pid, stall_s, load_s)
        if silent_s > limit_s:
            log.error("silent", worker=name, pid=pid, after_s=round(silent_s, 1))
            await worker.abort(Reason.SILENT)


def _limit_s(status: WorkerStatus | None, pid: int | None, stall_s: float, load_s: float) -> float:
    """Return for how long this life of the worker may give no sign, where it is in its life."""
    if status is None or status.pid != pid or status.phase is Phase.LOADING:
        return load_s
    ends = status.phase is Phase.DRAINING and not status.held
    return max(stall_s, ENDING_S if ends else 0.0) + SILENCE_MARGIN_S
