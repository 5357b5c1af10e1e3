"""dramatiq, with its results backend or (``QUEUE_RESULTS=0``) without, as it is by default."""

from __future__ import annotations

import os
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from bench.queue_systems.clock import Sent, send_all
from bench.queue_systems.marks import Marks

URL = os.environ["QUEUE_URL"]
STORES = os.environ["QUEUE_RESULTS"] == "1"

broker = RedisBroker(url=URL)
if STORES:
    broker.add_middleware(Results(backend=RedisBackend(url=URL)))
dramatiq.set_broker(broker)
if os.environ.get("QUEUE_ROLE") == "work":
    marks = Marks.of_environment()


def _noop(number: int) -> int:
    marks.ran(number)
    return number


noop = dramatiq.actor(_noop, actor_name="noop", **({"store_results": True} if STORES else {}))


def send(count: int) -> Sent:
    """Send the numbers below ``count``."""
    return send_all(noop.send, count, lambda message: str(message.message_id))


def read(names: list[str]) -> list[Any]:
    """Return the answers of the tasks."""
    message = noop.message(0)
    return [message.copy(message_id=name).get_result(block=False) for name in names]
