"""What every process of a queue measured, at whichever API process it is asked for.

Each process says in the queue's server what it has counted since its start, and an API process that
is asked shows them all, told apart by the label ``process``. So it does not matter which one a load
balancer picks, and no counter goes back: the process that is asked says its own part anew first.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, Self, cast

import structlog
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.registry import Collector
from redis.asyncio import Redis

from forebay.core.background import Background
from forebay.core.errors import QueueUnavailableError
from forebay.ops.metric_book import facts
from forebay.queue.connection import unavailable
from forebay.queue.functions import Functions, by_name
from forebay.queue.limits import QueueLimits
from forebay.queue.schema import Keys, access_name

log = structlog.get_logger("forebay.metrics")

PROCESS: Final = "process"
"""The label that tells processes apart."""

EVERY_S: Final = 5.0
TOLD_FOR_S: Final = 20.0
"""What a process measured is shown for so long after its last word."""

MOST_PROCESSES: Final = 1_000
_CREATED: Final = "_created"


class MeasureLibrary(Functions):
    """The functions of measures, for one queue."""

    async def put(self, process: str, text: str, ms: int) -> None:
        """Keep what a process measured for so long."""
        await self._call("measure_put", process, text, ms, MOST_PROCESSES)

    async def every(self) -> dict[str, str]:
        """Return what each process measured that was heard of lately."""
        return by_name(await self._call("measure_all"))


class MetricsBoard:
    """An async context manager; while it is entered, this process says what it measures.

    ``process``: a name that no other process has, and that its successor has too: what it counts
    begins anew then, as Prometheus expects. ``shared``: metrics that are the queue's own; the
    process that is asked tells them, for all and without the label.
    """

    def __init__(
        self,
        redis: Redis,
        queue_name: str,
        registry: CollectorRegistry,
        process: str,
        shared: Iterable[str] = (),
    ) -> None:
        self._library = MeasureLibrary(redis, Keys(access_name(queue_name)), QueueLimits())
        self._registry = registry
        self._process = process
        self._shared = frozenset(shared)
        self._turn = asyncio.Lock()
        self._telling = Background("measures", _failed)

    async def __aenter__(self) -> Self:
        self._telling.start(self._tell_for_ever())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._telling.stop()

    async def _tell_for_ever(self) -> None:
        while True:
            try:
                await self.tell()
            except QueueUnavailableError as error:
                log.debug("measures_not_told", reason=error.message)
            await asyncio.sleep(EVERY_S)

    async def tell(self) -> None:
        """Say what this process has measured. Raises QueueUnavailableError.

        One at a time: an older word must not come after a newer one.
        """
        async with self._turn, unavailable("telling measures"):
            text = to_text(self._own())
            await self._library.put(self._process, text, round(TOLD_FOR_S * 1000))

    async def render(self) -> bytes:
        """Return the metrics of every process; of this one alone while the queue is away."""
        try:
            await self.tell()
            async with unavailable("reading measures"):
                told = {name: of_text(text) for name, text in (await self._library.every()).items()}
        except QueueUnavailableError as error:
            log.debug("measures_of_one", reason=error.message)
            told = {self._process: self._own()}
        return _text_of([*_merged(told), *self._of_queue()])

    def _own(self) -> list[Metric]:
        return [one for one in self._registry.collect() if _full_name(one) not in self._shared]

    def _of_queue(self) -> list[Metric]:
        return [one for one in self._registry.collect() if _full_name(one) in self._shared]


def to_text(families: Iterable[Metric]) -> str:
    """Return metrics as they lie in the server."""
    rows = [[one.name, one.type, [[s.name, s.labels, s.value] for s in _samples(one)]]
            for one in families]  # fmt: skip
    return json.dumps(rows, ensure_ascii=False, separators=(",", ":"))


def of_text(text: str) -> list[Metric]:
    """Read what ``to_text`` wrote."""
    return [_family(*row) for row in json.loads(text)]


def _family(name: str, kind: str, samples: list[Any]) -> Metric:
    fact = facts().get(name) or facts().get(f"{name}_total")
    family = Metric(name, fact.says["en"] if fact else name, kind)
    for sample in samples:
        family.add_sample(*sample)
    return family


def _samples(family: Metric) -> Iterator[Any]:
    return (one for one in family.samples if not one.name.endswith(_CREATED))


def _merged(told: Mapping[str, Iterable[Metric]]) -> list[Metric]:
    """Return each metric once, with the samples of all processes."""
    found: dict[str, Metric] = {}
    for process, families in told.items():
        for one in families:
            family = found.setdefault(one.name, Metric(one.name, one.documentation, one.type))
            for sample in _samples(one):
                family.add_sample(sample.name, {**sample.labels, PROCESS: process}, sample.value)
    return list(found.values())


def _text_of(families: Iterable[Metric]) -> bytes:
    """Return the text form, in which each metric stands once."""
    found: dict[str, Metric] = {}
    for one in families:
        family = found.setdefault(one.name, Metric(one.name, one.documentation, one.type))
        family.samples.extend(_samples(one))
    return generate_latest(cast("CollectorRegistry", _Families(found.values())))


def _full_name(family: Metric) -> str:
    return f"{family.name}_total" if family.type == "counter" else family.name


class _Families(Collector):
    """Metrics in the place of a registry that has them."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        """Return the metrics."""
        return iter(self._families)


def _failed(error: BaseException) -> None:
    log.error("measures_failed", exc_info=error)
