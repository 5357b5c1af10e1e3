"""The Lua library: loaded once per server, called by typed methods, one round trip each."""

from __future__ import annotations

from forebay.queue.library_door import DoorLibrary
from forebay.queue.library_operator import OperatorLibrary
from forebay.queue.library_worker import WorkerLibrary


class Library(DoorLibrary, WorkerLibrary, OperatorLibrary):
    """Every function of the library, for one queue."""
