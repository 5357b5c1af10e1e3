"""Whichever API process is asked, it shows what all of them and all workers measured."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from redis.asyncio import Redis

from forebay.api.app import build
from forebay.config import Settings
from forebay.ops import metrics_board
from forebay.ops.metric_book import facts
from forebay.ops.metrics import SHARED, Metrics
from forebay.ops.metrics_board import MeasureLibrary, MetricsBoard, of_text, to_text
from forebay.ops.worker_metrics import WorkerMetrics
from forebay.queue.connection import connect
from forebay.queue.embedded import EmbeddedValkey
from forebay.queue.limits import QueueLimits
from forebay.queue.ports import QueueDepth
from forebay.queue.schema import Keys, access_name

Shown = dict[tuple[str, frozenset[tuple[str, str]]], float]


def read(text: bytes) -> Shown:
    return {
        (one.name, frozenset(one.labels.items())): one.value
        for family in text_string_to_metric_families(text.decode())
        for one in family.samples
    }


def of(shown: Shown, name: str, **labels: str) -> float:
    (found,) = [
        value for (one, has), value in shown.items() if one == name and labels.items() <= set(has)
    ]
    return found


def names(shown: Shown) -> set[str]:
    return {name for name, _ in shown}


def processes(shown: Shown) -> set[str]:
    return {dict(has)["process"] for _, has in shown if "process" in dict(has)}


def door(redis: Redis, process: str, waiting: int = 0) -> tuple[Metrics, MetricsBoard]:
    metrics = Metrics("m")
    metrics.see_queue(QueueDepth(waiting, 0, 0, 0), 1)
    return metrics, MetricsBoard(redis, "test", metrics.registry, process, SHARED)


def worker(redis: Redis, name: str) -> tuple[WorkerMetrics, MetricsBoard]:
    metrics = WorkerMetrics("m", name)
    return metrics, MetricsBoard(redis, "test", metrics.registry, name)


async def test_two_doors_show_the_same_of_each_other_and_of_the_workers(redis: Redis) -> None:
    (one, at_one), (other, at_other) = door(redis, "api-a"), door(redis, "api-b")
    works, at_worker = worker(redis, "worker-0")
    one.admitted.inc(3)
    other.admitted.inc(4)
    works.vllm_first_token.observe(0.05)
    for board in (at_one, at_other, at_worker):
        await board.tell()
    first, second = read(await at_one.render()), read(await at_other.render())
    assert processes(first) == processes(second) == {"api-a", "api-b", "worker-0"}
    assert first.keys() == second.keys()
    for shown in (first, second):
        assert of(shown, "forebay_admitted_total", process="api-a") == 3
        assert of(shown, "forebay_admitted_total", process="api-b") == 4
        ttft = of(shown, "vllm:time_to_first_token_seconds_bucket", le="0.06", engine="worker-0")
        assert ttft == 1


async def test_what_is_the_queues_is_told_once_and_by_the_one_that_is_asked(redis: Redis) -> None:
    (_, at_one), (_, at_other) = door(redis, "api-a", waiting=7), door(redis, "api-b", waiting=9)
    works, at_worker = worker(redis, "worker-0")
    works.vllm_waiting.set(2)
    for board in (at_other, at_worker):
        await board.tell()
    shown = read(await at_one.render())
    assert of(shown, "forebay_queue_tasks", place="waiting") == 7
    assert of(shown, "vllm:num_requests_waiting", engine="queue") == 7
    assert of(shown, "vllm:num_requests_waiting", engine="worker-0") == 2


async def test_no_counter_goes_back_whoever_is_asked_in_turn(redis: Redis) -> None:
    doors = [door(redis, f"api-{at}") for at in range(3)]
    works, at_worker = worker(redis, "worker-0")
    dice = random.Random(5)
    seen: Shown = {}
    for _ in range(60):
        dice.choice(doors)[0].admitted.inc(dice.randint(0, 3))
        works.vllm_generation_tokens.inc(dice.randint(0, 9))
        if dice.random() < 0.3:
            await at_worker.tell()
        shown = read(await dice.choice(doors)[1].render())
        counters = {key: value for key, value in shown.items() if key[0].endswith("_total")}
        assert not [key for key, value in counters.items() if value < seen.get(key, 0.0)]
        seen |= counters
    assert sum(v for (n, _), v in seen.items() if n == "forebay_admitted_total") > 0


async def test_a_process_that_began_anew_has_one_series_that_began_anew(redis: Redis) -> None:
    before, at_before = worker(redis, "worker-0")
    before.vllm_generation_tokens.inc(50)
    await at_before.tell()
    after, at_after = worker(redis, "worker-0")
    after.vllm_generation_tokens.inc(2)
    await at_after.tell()
    _, asked = door(redis, "api-a")
    assert of(read(await asked.render()), "vllm:generation_tokens_total") == 2


async def test_a_process_that_is_silent_is_shown_no_more(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_board, "TOLD_FOR_S", 0.2)
    await worker(redis, "worker-0")[1].tell()
    monkeypatch.undo()
    _, asked = door(redis, "api-a")
    async with asyncio.timeout(30):
        while processes(read(await asked.render())) != {"api-a"}:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_only_so_many_processes_are_kept(redis: Redis) -> None:
    library = MeasureLibrary(redis, Keys(access_name("test")), QueueLimits())
    for at in range(5):
        await library._call("measure_put", f"worker-{at}", "[]", 60_000, 3)
    assert set(await library.every()) == {"worker-2", "worker-3", "worker-4"}


async def test_a_process_says_what_it_measures_while_it_runs(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_board, "EVERY_S", 0.05)
    works, at_worker = worker(redis, "worker-0")
    _, asked = door(redis, "api-a")
    async with at_worker, asyncio.timeout(30):
        works.vllm_generation_tokens.inc(2)
        while True:
            shown = read(await asked.render())
            told = [v for (n, _), v in shown.items() if n == "vllm:generation_tokens_total"]
            if told == [2]:
                break
            await asyncio.sleep(0.02)


async def test_while_the_queue_is_away_a_door_shows_itself(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path / "gone") as server:
        url = server.url
    redis = connect(url)
    metrics, board = door(redis, "api-a")
    metrics.admitted.inc(3)
    metrics.miss_queue()
    shown = read(await board.render())
    assert of(shown, "forebay_admitted_total", process="api-a") == 3
    assert of(shown, "forebay_queue_up") == 0
    assert processes(shown) == {"api-a"}
    await redis.aclose()


def test_what_is_written_is_read() -> None:
    metrics = WorkerMetrics("m", "w")
    metrics.see_duration(0.3)
    metrics.see_success("stop")
    families = list(metrics.registry.collect())

    def rows(found: Iterable[object]) -> list[object]:
        return [(f.name, f.type, [(s.name, s.labels, s.value) for s in f.samples  # type: ignore[attr-defined]
                                  if not s.name.endswith("_created")]) for f in found]  # fmt: skip

    kept = [one for one in rows(families) if not one[0].startswith("process_")]  # type: ignore[index]
    back = [one for one in rows(of_text(to_text(families))) if not one[0].startswith("process_")]  # type: ignore[index]
    assert kept == back


def test_every_metric_is_somebodys_and_every_one_is_explained() -> None:
    works = WorkerMetrics("m", "w")
    works.see_blocks(0, 1)
    found = {
        family.name + ("_total" if family.type == "counter" else "")
        for registry in (Metrics("m").registry, works.registry)
        for family in registry.collect()
    }
    assert set(facts()) - found == set()
    assert {one for one in found - set(facts()) if not one.startswith("process_")} == set()


@pytest.mark.parametrize("fact", facts().values(), ids=lambda one: one.name)
def test_a_metrics_name_ends_with_its_unit(fact: object) -> None:
    name, unit, kind = fact.name, fact.unit, fact.kind  # type: ignore[attr-defined]
    if not name.startswith("forebay_"):
        return
    bare = name.removesuffix("_total") if kind == "counter" else name
    if unit in ("seconds", "bytes", "ratio", "celsius", "watts", "tokens_per_second"):
        assert bare.endswith(f"_{unit}")
    if unit == "epoch":
        assert bare.endswith("_timestamp_seconds")
    assert (kind == "counter") == name.endswith("_total")


async def test_a_request_at_one_api_process_shows_at_the_other(
    redis: Redis, valkey: EmbeddedValkey, tmp_path: Path
) -> None:
    await redis.ping()
    common = {"queue_url": valkey.url, "alerts": False}
    settings = [
        Settings(**common, data_dir=tmp_path / str(port), port=port) for port in (7001, 7002)
    ]
    async with build(settings[0]) as one, build(settings[1]) as other:
        clients = [
            httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://localhost")
            for app in (one, other)
        ]
        for _ in range(3):
            assert (await clients[0].get("/v1/models")).status_code == 200
        await clients[0].get("/metrics")
        at_other = read((await clients[1].get("/metrics")).content)
        counted = [
            value
            for (name, has), value in at_other.items()
            if name == "forebay_http_requests_total" and dict(has)["route"] == "/v1/models"
        ]
        assert counted == [3]
        assert len(processes(at_other)) == 2
        for client in clients:
            await client.aclose()
