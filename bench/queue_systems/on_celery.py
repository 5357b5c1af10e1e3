"""Celery with Redis as broker and as results backend."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery

from bench.queue_systems.clock import Sent, send_all
from bench.queue_systems.marks import Marks

URL = os.environ["QUEUE_URL"]
app = Celery("bench", broker=URL, backend=URL)
app.conf.worker_prefetch_multiplier = int(os.environ.get("QUEUE_PREFETCH", "4"))
if os.environ.get("QUEUE_ROLE") == "work":
    marks = Marks.of_environment()


def _noop(number: int) -> int:
    marks.ran(number)
    return number


noop = app.task(_noop, name="noop")


def send(count: int) -> Sent:
    """Send the numbers below ``count``."""
    return send_all(noop.delay, count, lambda result: str(result.id))


def read(names: list[str]) -> list[Any]:
    """Return the answers of the tasks."""
    return [app.AsyncResult(name).get(timeout=10) for name in names]
