"""Every query of every panel, asked of a real Prometheus that scrapes a Forebay under load."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import httpx
import pytest

from forebay.ops.metric_book import MetricBook
from forebay.ops.metrics_board import MetricsBoard
from forebay.ops.resources import GpuReading, MachineReading
from forebay.queue.connection import connect
from forebay.queue.embedded import EmbeddedValkey
from tests.checkpoints import TINY, write_checkpoint
from tests.integration.stack import ServeProcess, serving
from tests.monitoring.prometheus import WAIT_S, Prometheus, running
from tests.monitoring.tools import DASHBOARDS, needs, queries
from tests.ops.alert_rig import RULES

pytestmark = [pytest.mark.slow, needs("prometheus"), pytest.mark.timeout(900)]

ELSEWHERE = MachineReading(
    host="elsewhere", cpu_use=0.2, memory_use=0.3, disk_use=0.4, certificates={},
    gpus=(GpuReading(0, 0.5, memory_used=2**33, memory_total=2**34, temperature_c=60,
                     power_w=200),),
)  # fmt: skip
"""A worker's machine that has a GPU: what it says comes by the same way as every worker's."""


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    folder = tmp_path_factory.mktemp("monitoring")
    model = write_checkpoint(folder / "model", replace(TINY, stop_tokens=()))
    with EmbeddedValkey(folder / "queue") as server:
        url = server.url
        options = ("--set", f"queue_url={url}", "--set", "alert_every_s=1")
        options += ("--set", "fetch_urls=true")
        with (
            serving(model, folder / "stack", *options) as stack,
            under_load(stack),
            gpu_elsewhere(url),
            running(folder / "prometheus", stack.url) as prometheus,
        ):
            yield prometheus


@pytest.mark.parametrize(("panel", "expr"), queries(DASHBOARDS[0]))
def test_every_query_returns_data(prometheus: Prometheus, panel: str, expr: str) -> None:
    asked = expr.replace("$__rate_interval", "1m")
    deadline = time.monotonic() + WAIT_S
    while not (found := known(prometheus, asked)):
        assert time.monotonic() < deadline, f"{panel}: no data from {asked}"
        time.sleep(0.5)
    assert found


def known(prometheus: Prometheus, expr: str) -> list[float]:
    values = [float(one["value"][1]) for one in prometheus.query(expr)]
    return [one for one in values if one == one]  # not NaN


def test_every_rule_is_judged(prometheus: Prometheus) -> None:
    deadline = time.monotonic() + WAIT_S
    while {one["health"] for one in prometheus.rules()} != {"ok"}:
        assert time.monotonic() < deadline, prometheus.rules()
        time.sleep(0.5)
    assert {one["name"] for one in prometheus.rules()} == {one.name for one in RULES}


@contextmanager
def gpu_elsewhere(url: str) -> Iterator[None]:
    """Have a worker on another machine, with a GPU, say how it is."""
    over = threading.Event()

    async def tell() -> None:
        book = MetricBook()
        book.see_machine(ELSEWHERE)
        redis = connect(url)
        board = MetricsBoard(redis, "main", book.registry, "worker-elsewhere")
        while not over.is_set():
            await board.tell()
            await asyncio.sleep(0.5)
        await redis.aclose()

    thread = threading.Thread(target=lambda: asyncio.run(tell()))
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(30)


@contextmanager
def under_load(stack: ServeProcess) -> Iterator[None]:
    """Ask for a little of everything, again and again."""
    over = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=stack.url, timeout=60, trust_env=False) as http:
            while not over.is_set():
                a_little_of_everything(http, stack, time.monotonic_ns())

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(60)


def a_little_of_everything(http: httpx.Client, stack: ServeProcess, number: int) -> None:
    stack.submit(2, f"what is {number}")
    words = {"role": "user", "content": f"say {number}"}
    chat = {"model": "glm-4v-flash", "messages": [words], "max_tokens": 12, "temperature": 0}
    for stream in (True, False):  # the second is the first one's answer, kept
        with http.stream("POST", "/v1/chat/completions", json={**chat, "stream": stream}) as told:
            told.read()
    http.post("/v1/chat/completions", json={})
    url = {"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/a.png"}}
    asked = {**chat, "messages": [{"role": "user", "content": [url]}]}
    http.post("/v1/chat/completions", json=asked)
    time.sleep(0.2)
