"""Python runs this at the start of every process whose PYTHONPATH has this folder.

The engine's next step hangs in the way that the file ``SABOTAGE_ORDER`` names, once: the order is
taken by the process that obeys it.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from pathlib import Path
from typing import Any

from forebay.worker.engine_thread import EngineThread

ORDER = Path(os.environ.get("SABOTAGE_ORDER", "/nonexistent"))  # decoders have no variables
FOR_EVER_S = 3600
_init = EngineThread.__init__
_lock = threading.Lock()


def _sleep(_: EngineThread) -> None:
    time.sleep(FOR_EVER_S)


def _spin(_: EngineThread) -> None:
    while True:
        pass


def _deadlock(_: EngineThread) -> None:
    with _lock, _lock:
        raise AssertionError("unreachable")


def _hold_the_inbox(thread: EngineThread) -> None:
    with thread._changed:
        time.sleep(FOR_EVER_S)


def _hold_the_interpreter(_: EngineThread) -> None:
    ctypes.PyDLL(None).sleep(FOR_EVER_S)  # unlike other calls it keeps the interpreter's lock


WAYS = {
    "sleep": _sleep,
    "spin": _spin,
    "deadlock": _deadlock,
    "hold the inbox": _hold_the_inbox,
    "hold the interpreter": _hold_the_interpreter,
}


def _obey(thread: EngineThread) -> None:
    try:
        way = ORDER.read_text(encoding="utf-8")
        ORDER.rename(ORDER.with_suffix(f".{os.getpid()}"))
    except FileNotFoundError:
        return
    WAYS[way](thread)
    raise AssertionError("unreachable")


def _sabotaged(thread: EngineThread, engine: Any, *args: Any, **kwargs: Any) -> None:
    _init(thread, engine, *args, **kwargs)
    step = engine.step

    def obey_and_step() -> Any:
        _obey(thread)
        return step()

    engine.step = obey_and_step


EngineThread.__init__ = _sabotaged  # type: ignore[method-assign, assignment]
