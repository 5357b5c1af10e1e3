"""The worker as it is, before an engine that answers at once: what is left is the road itself.

    FOREBAY_QUEUE_URL=... python -m bench.instant_worker

It reads pictures from where the API stores them, publishes and finishes as every worker does. A
request's last text must be a number; that is the answer.
"""

from __future__ import annotations

import uvloop

from bench.queue_systems.noop_engine import NoopEngine
from forebay.config import load_settings
from forebay.queue.blob_places import open_blobs
from forebay.queue.opening import open_queue
from forebay.worker.main import worker_limits
from forebay.worker.signals import StopSignal
from forebay.worker.worker import Worker

LEASES = 64
TOKENS = 10**9


async def _work() -> None:
    settings = load_settings()
    async with open_queue(
        settings.queue_address(), settings.queue_name, settings.queue_limits()
    ) as opened:
        worker = Worker(
            "instant",
            queue=opened.queue,
            streams=opened.streams,
            blobs=open_blobs(settings.blob_address(), opened.places),
            engine=NoopEngine(),
            limits=worker_limits(settings, LEASES, TOKENS),
        )
        with StopSignal().listening() as stop:
            await worker.run(stop.asked, stop.hurried)


if __name__ == "__main__":
    uvloop.run(_work())
