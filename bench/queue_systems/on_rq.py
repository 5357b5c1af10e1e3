"""RQ with its SimpleWorker, which does not fork for every task."""

from __future__ import annotations

import os
from typing import Any

from redis import Redis
from rq import Queue
from rq.job import Job

from bench.queue_systems.clock import Sent, send_all
from bench.queue_systems.marks import Marks

URL = os.environ["QUEUE_URL"]
if os.environ.get("QUEUE_ROLE") == "work":
    marks = Marks.of_environment()


def noop(number: int) -> int:
    """Answer with the number."""
    marks.ran(number)
    return number


def send(count: int) -> Sent:
    """Send the numbers below ``count``."""
    queue = Queue(connection=Redis.from_url(URL))
    return send_all(lambda number: queue.enqueue(noop, number), count, lambda job: str(job.id))


def read(names: list[str]) -> list[Any]:
    """Return the answers of the tasks."""
    redis = Redis.from_url(URL)
    return [Job.fetch(name, connection=redis).return_value() for name in names]
