"""Processes that judge together, over a real server: one tells, any takes over, none forgets."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from redis.asyncio import Redis

from forebay.ops.alerts.reporting import MachineReporter
from forebay.ops.alerts.silences import Silence
from forebay.ops.alerts.states import Stage
from forebay.ops.alerts.store import MOST_LOGGED, REPORTS_TTL_S, AlertStore
from forebay.ops.alerts.telling import Teller, TellingTerms
from forebay.ops.alerts.watch import AlertWatch, WatchTerms
from forebay.ops.metrics import Metrics
from forebay.ops.notify.news import News, PushError
from forebay.ops.resources import Machine
from forebay.queue.connection import connect
from tests.ops.alert_rig import EVERY_S, RULES

REPEAT_S = 3600.0


@dataclass
class Heard:
    """A channel that keeps what it is sent, or refuses."""

    name: str = "slack"
    news: list[News] = field(default_factory=list)
    refuses: bool = False

    async def send(self, news: News) -> None:
        if self.refuses:
            raise PushError("it is away")
        self.news.append(news)

    @property
    def states(self) -> list[tuple[str, str]]:
        return [(item.name, item.state) for news in self.news for item in news.items]


@dataclass
class Clock:
    now_s: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


class Process:
    """One API process's watch, with its own metrics."""

    def __init__(
        self, redis: Redis, name: str, clock: Clock, *channels: Heard, judges: bool = True
    ) -> None:
        self.measured = 0
        self.metrics = Metrics()
        self.metrics.queue_up.set(1)
        self.metrics.workers.set(1)
        self.store = AlertStore(redis, "test")
        self.teller = Teller(channels, RULES, self.metrics, TellingTerms(repeat_s=REPEAT_S))
        terms = WatchTerms(name, EVERY_S, judges)
        self.watch = AlertWatch(
            self.store, self.metrics, RULES, self.teller, self._measure, terms, clock
        )

    async def _measure(self) -> None:
        """The tests set the gauges."""
        self.measured += 1

    def disk(self, share: float) -> None:
        self.metrics.disk_use.labels("h").set(share)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def heard() -> Heard:
    return Heard()


async def go(clock: Clock, looks: int, *processes: Process) -> None:
    for _ in range(looks):
        for one in processes:
            await one.watch.look()
        clock.now_s += EVERY_S


async def test_one_of_two_processes_tells_what_both_measure(
    redis: Redis, clock: Clock, heard: Heard
) -> None:
    a, b = (Process(redis, name, clock, heard) for name in "ab")
    a.disk(0.95)
    b.disk(0.95)
    await go(clock, 10, a, b)
    assert heard.states == [("DiskFull", "critical")]
    kept = await b.store.alerts()
    assert [one.stage for one in kept.values()] == [Stage.FIRING]
    a.disk(0.5)
    await go(clock, 2, a, b)
    assert len(heard.states) == 1  # on the other one's machine it still holds
    b.disk(0.5)
    await go(clock, 3, a, b)
    assert heard.states[1:] == [("DiskFull", "resolved")]
    assert await b.store.alerts() == {}
    assert [one["stage"] for one in await a.store.log(10)] == ["resolved", "firing"]


async def test_what_one_process_measures_the_leader_tells(
    redis: Redis, clock: Clock, heard: Heard
) -> None:
    leader, other = (Process(redis, name, clock, heard) for name in "ab")
    await go(clock, 1, leader, other)
    for _ in range(40):
        other.metrics.requests.labels("/predict", "POST", "500").inc(10)
        leader.metrics.requests.labels("/predict", "POST", "200").inc(10)
        await go(clock, 1, leader, other)
    assert heard.states == [("ErrorsMany", "critical")]
    assert heard.news[0].items[0].text.startswith("46.15%")  # half, but for the last report


async def test_another_process_takes_over_in_the_middle_and_tells_nothing_twice(
    redis: Redis, clock: Clock, heard: Heard
) -> None:
    a, b = (Process(redis, name, clock, heard) for name in "ab")
    for one in (a, b):
        one.disk(0.95)
    await go(clock, 3, a, b)  # it is pending now
    await a.store.resign("a")
    await go(clock, 10, b)
    assert heard.states == [("DiskFull", "critical")]
    assert await b.store.lead("a", 1.0) is False
    kept = next(iter((await b.store.alerts()).values()))
    assert kept.since_s - kept.held_s == 60.0  # the time that the first one saw counts


async def test_a_leader_that_lost_the_lead_tells_nothing_more(
    redis: Redis, clock: Clock, heard: Heard
) -> None:
    a, b = (Process(redis, name, clock, heard) for name in "ab")
    a.disk(0.95)
    await go(clock, 1, a)
    await redis.delete(a.store._key("alert_leader"))  # it was away for too long
    assert await b.store.lead("b", 60.0)
    assert await a.store.keep("a", {}) is False
    await go(clock, 10, a)
    assert heard.states == []


async def test_a_channel_that_refuses_is_tried_again_and_the_others_are_told_once(
    redis: Redis, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forebay.ops.alerts.telling.FIRST_PAUSE_S", 0.0)
    well, ill = Heard("slack"), Heard("mail", refuses=True)
    process = Process(redis, "a", clock, well, ill)
    process.disk(0.95)
    await go(clock, 8, process)
    assert (len(well.states), ill.states) == (1, [])
    ill.refuses = False
    await go(clock, 2, process)
    assert (len(well.states), len(ill.states)) == (1, 1)
    sent = process.metrics.registry.get_sample_value(
        "forebay_alert_pushes_total", {"channel": "mail", "outcome": "failed"}
    )
    assert sent is not None
    assert sent >= 2


async def test_a_failing_channel_is_left_alone_for_longer_and_longer(
    redis: Redis, clock: Clock
) -> None:
    ill = Heard("mail", refuses=True)
    process = Process(redis, "a", clock, ill)
    process.disk(0.95)
    await go(clock, 30, process)  # within less than the first pause of real time
    failed = process.metrics.registry.get_sample_value(
        "forebay_alert_pushes_total", {"channel": "mail", "outcome": "failed"}
    )
    assert failed == 1


async def test_what_goes_on_firing_is_told_again_after_the_repeat_interval(
    redis: Redis, clock: Clock, heard: Heard
) -> None:
    process = Process(redis, "a", clock, heard)
    process.disk(0.95)
    await go(clock, 6, process)
    clock.now_s += REPEAT_S - 7 * EVERY_S
    await go(clock, 1, process)
    assert len(heard.states) == 1
    clock.now_s += 4 * EVERY_S
    await go(clock, 1, process)
    assert heard.states == [("DiskFull", "critical")] * 2


async def test_a_silenced_alert_is_told_when_the_silence_ends(
    redis: Redis, clock: Clock, heard: Heard
) -> None:
    process = Process(redis, "a", clock, heard)
    until_s = clock.now_s + 20 * EVERY_S
    assert await process.store.silence(Silence("s1", "DiskFull", {}, until_s))
    process.disk(0.95)
    await go(clock, 19, process)
    assert heard.states == []
    assert [one.stage for one in (await process.store.alerts()).values()] == [Stage.FIRING]
    await go(clock, 2, process)
    assert heard.states == [("DiskFull", "critical")]
    assert await process.store.silences(clock.now_s) == []


async def test_the_leader_judges_on_from_memory_while_the_server_is_away(
    redis: Redis, clock: Clock, heard: Heard
) -> None:
    process = Process(redis, "a", clock, heard)
    await go(clock, 1, process)
    process.store._redis = process.store._library._redis = connect("redis://127.0.0.1:1")
    process.metrics.miss_queue()
    await go(clock, 4, process)
    assert heard.states == [("QueueServerAway", "critical")]


async def test_a_process_that_is_gone_is_forgotten(redis: Redis, clock: Clock) -> None:
    a, b = (Process(redis, name, clock) for name in "ab")
    await go(clock, 1, a, b)
    await go(clock, 8, a)
    assert set(await a.store.reports()) == {"a"}


async def test_everything_kept_ends_or_is_bounded(redis: Redis, clock: Clock, heard: Heard) -> None:
    process = Process(redis, "a", clock, heard)
    for turn in range(6):
        process.disk(0.95 if turn % 2 == 0 else 0.1)
        await go(clock, 6, process)
    await process.store.silence(Silence("s1", "", {}, clock.now_s + 100))
    keys = [key async for key in redis.scan_iter(match="*")]
    forever = {key for key in keys if await redis.pttl(key) < 0}
    assert (len(keys), forever) == (6, {"{fb:test:access}:meta"})
    assert await redis.ttl(process.store._key("alert_reports")) <= REPORTS_TTL_S
    changes = [{"at": i} for i in range(MOST_LOGGED + 10)]
    assert await process.store.keep("a", {}, changes)
    assert await redis.xlen(process.store._key("alert_log")) == MOST_LOGGED


async def test_a_watch_runs_by_itself_and_gives_the_lead_up_at_its_end(
    redis: Redis, heard: Heard, clock: Clock
) -> None:
    process, next_one = (Process(redis, name, clock, heard) for name in "ab")
    async with process.watch:
        async with asyncio.timeout(10):
            while not await process.store.reports():  # noqa: ASYNC110 - it is the server that tells
                await asyncio.sleep(0.01)
    assert await next_one.store.lead("b", 1.0)


async def test_a_process_that_does_not_judge_measures_all_the_same(
    redis: Redis, clock: Clock, heard: Heard
) -> None:
    process = Process(redis, "a", clock, heard, judges=False)
    process.disk(0.95)
    await go(clock, 8, process)
    assert (process.measured, heard.states) == (8, [])
    assert await redis.keys() == []


async def test_a_worker_s_machine_is_judged_by_the_api_on_another(
    redis: Redis, clock: Clock, heard: Heard, tmp_path: Path
) -> None:
    api = Process(redis, "a", clock, heard)
    reporter = MachineReporter(api.store, RULES, Machine(tmp_path), "w", every_s=EVERY_S)
    async with reporter:
        async with asyncio.timeout(10):
            while "w" not in await api.store.reports():  # noqa: ASYNC110 - the server is asked
                await asyncio.sleep(0.01)
    told = {one.name for one in (await api.store.reports())["w"][1]}
    assert {"forebay_cpu_use_ratio", "forebay_memory_use_ratio", "forebay_disk_use_ratio"} <= told
    assert not {"forebay_queue_up", "forebay_workers"} & told  # it does not know of them


async def test_a_channel_that_hangs_is_given_up_in_time(
    redis: Redis, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hanging(Heard):
        async def send(self, news: News) -> None:
            await asyncio.Event().wait()

    monkeypatch.setattr("forebay.ops.alerts.telling.MOST_S", 0.01)
    well = Heard("mail")
    process = Process(redis, "a", clock, Hanging("slack"), well)
    process.disk(0.95)
    await go(clock, 6, process)
    assert well.states == [("DiskFull", "critical")]
    assert await process.teller.test("slack") == "it was not taken within 0.01 s"
