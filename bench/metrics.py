"""What counting costs: a step, a token, a request, a scrape. ``python -m bench.metrics``."""

from __future__ import annotations

import timeit
from collections.abc import Callable

from forebay.core.events import PhaseBegun, TokenDelta
from forebay.core.events import StepStats as Stats
from forebay.core.lifecycle import State
from forebay.core.request import InferenceRequest, TaskId
from forebay.ops.metrics import Metrics
from forebay.ops.metrics_board import of_text, to_text
from forebay.ops.worker_metrics import WorkerMetrics
from forebay.queue.ports import Fence, Lease, Outcome
from forebay.worker.journal import Journal, Told
from forebay.worker.leases import HeldLeases, key_of, run_id

STEP = Stats(running=8, prefill_tokens=300, decode_tokens=8, kv_blocks_total=100, step_s=0.02,
             decoder_s=0.02)  # fmt: skip
ROUTES = 20
"""As many routes as a busy door answers."""

BEST_OF = 5


def micros(call: Callable[[], object], times: int) -> float:
    """Return the microseconds of a call, in the quickest of several rounds."""
    return min(timeit.repeat(call, number=times, repeat=BEST_OF)) / times * 1e6


def journal(metrics: WorkerMetrics) -> tuple[Journal, HeldLeases, Lease]:
    """Return a journal that follows nothing yet, and a lease to follow."""
    held = HeldLeases(64, 10**9)
    lease = Lease(TaskId("t"), Fence(1), InferenceRequest("m", ()), 1, 1)
    return Journal("w", held, Told(metrics)), held, lease


def main() -> None:
    """Print a line for each."""
    works, door = WorkerMetrics("m", "w"), Metrics("m")
    notes, held, lease = journal(works)
    key = key_of(lease)
    held.take(lease)
    notes.leased(lease)
    delta = [TokenDelta(run_id(key), "x", 1)]
    phase = [PhaseBegun(run_id(key), State.DECODE, 0.0)]

    def request() -> None:
        notes.leased(lease)
        notes.heard(phase)
        notes.ended(Outcome(*key), 0.001)

    print(f"a step of the engine      {micros(lambda: works.see_step(STEP), 20_000):8.1f} us")
    print(f"a token                   {micros(lambda: notes.heard(delta), 20_000):8.1f} us")
    print(f"a task, from lease to end {micros(request, 5_000):8.1f} us")
    for at in range(ROUTES):
        door.requests.labels(f"/{at}", "GET", "200").inc()
        door.request_seconds.labels(f"/{at}").observe(0.1)
    for name, book in (("a worker", works), ("a door", door)):
        text = to_text(book.registry.collect())
        told = micros(lambda book=book: to_text(book.registry.collect()), 50)  # type: ignore[misc]
        read = micros(lambda text=text: of_text(text), 50)  # type: ignore[misc]
        print(f"what {name} measured: {len(text) / 1e3:.0f} kB, "
              f"{told / 1e3:.1f} ms to write every 2 s, {read / 1e3:.1f} ms to read")  # fmt: skip


if __name__ == "__main__":
    main()
