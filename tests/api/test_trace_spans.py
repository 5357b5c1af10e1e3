"""One trace from a client's call to the last token, also when the task is delivered twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from redis.asyncio import Redis

from forebay.admission.pool import DecoderPool
from forebay.engine.engine import Engine
from forebay.engine.limits import EngineLimits
from forebay.ops.metrics import Metrics
from forebay.ops.otlp import OtlpExporter, OtlpTerms
from forebay.ops.otlp_messages import Origin
from forebay.ops.worker_metrics import WorkerMetrics
from forebay.queue.blobs import FolderBlobs
from forebay.worker.journal import Told
from tests.admission.pictures import picture
from tests.api.door import MODEL, Door, data_url, open_door
from tests.api.engine_rig import answering
from tests.checkpoints import TINY, write_checkpoint
from tests.ops.otlp_collector import Collector, SeenSpan, collecting
from tests.queue.stumbling import StumblingBlobs

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
EXACT_NS = 2_000_000
"""What is measured by one clock fits; the queue tells a wait in whole milliseconds."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("model"), replace(TINY, stop_tokens=()))


@pytest.fixture
def engine(checkpoint: Path) -> Engine:
    return Engine.from_folder(checkpoint, limits=EngineLimits(max_running=4), device="cpu")


async def ask(door: Door, flags: str = "01", **more: object) -> None:
    image = {"type": "image_url", "image_url": {"url": data_url(picture(size=(60, 80)))}}
    words = {"type": "text", "text": "what is it"}
    message = {"role": "user", "content": [image, words]}
    asked = {"model": MODEL, "messages": [message], "max_tokens": 6, **more}
    given = {"traceparent": f"00-{TRACE}-{CALLER}-{flags}", "tracestate": "x=1,y=2"}
    async with door.http.stream(
        "POST", "/v1/chat/completions", json=asked, headers=given
    ) as answer:
        text = (await answer.aread()).decode()
    assert answer.status_code == 200, text


async def traced(
    redis: Redis, tmp_path: Path, decoders: DecoderPool, engine: Engine, *, stumble: bool = False,
    flags: str = "01",
) -> Collector:  # fmt: skip
    folder = tmp_path / "blobs"
    with collecting() as collector:
        terms = OtlpTerms(collector.url, metrics_every_s=0)
        metrics = WorkerMetrics("m", "w")
        async with (
            OtlpExporter(terms, Origin("forebay", "1", "api"), Metrics()) as at_door,
            OtlpExporter(terms, Origin("forebay", "1", "w"), metrics) as at_worker,
            open_door(redis, folder, decoders, spans=at_door) as door,
        ):
            blobs = StumblingBlobs(folder) if stumble else FolderBlobs(folder)
            async with answering(door, engine, told=Told(metrics, at_worker), blobs=blobs):
                await ask(door, stream=True, flags=flags)
    return collector


def follow(spans: Sequence[SeenSpan]) -> None:
    """Check that each begins where the one before it ended."""
    for before, after in pairwise(spans):
        assert abs(after.start_ns - before.end_ns) <= EXACT_NS, (before.name, after.name)


def within(part: SeenSpan, whole: SeenSpan) -> None:
    assert part.parent == whole.span_id, part.name
    assert whole.start_ns - EXACT_NS <= part.start_ns <= part.end_ns <= whole.end_ns + EXACT_NS


async def test_a_trace_goes_from_the_call_to_the_last_token(
    redis: Redis, tmp_path: Path, decoders: DecoderPool, engine: Engine
) -> None:
    seen = await traced(redis, tmp_path, decoders, engine)
    assert {(one.trace_id, one.state) for one in seen.spans} == {(TRACE, "x=1,y=2")}
    (request,) = seen.named("POST /v1/chat/completions")
    assert request.parent == CALLER
    assert request.attributes["http.response.status_code"] == 200
    (admit,), (decoding,) = seen.named("admit"), seen.named("decode picture")
    (queue,), (lease,) = seen.named("queue"), seen.named("lease")
    for part in (admit, decoding, queue):
        within(part, request)
    assert lease.parent == request.span_id
    parts = [seen.named(one)[0] for one in ("prepare", "encode", "prefill", "decode", "publish")]
    for part in parts:
        within(part, lease)
    follow([queue, *parts])
    assert lease.attributes["forebay.tokens"] == 6
    # the client had its last token before the worker saw its result stored, or just after
    assert request.end_ns >= parts[3].start_ns


async def test_both_deliveries_of_a_task_are_parts_of_the_same_request(
    redis: Redis, tmp_path: Path, decoders: DecoderPool, engine: Engine
) -> None:
    seen = await traced(redis, tmp_path, decoders, engine, stumble=True)
    assert {one.trace_id for one in seen.spans} == {TRACE}
    (request,) = seen.named("POST /v1/chat/completions")
    queues, leases = seen.named("queue"), seen.named("lease")
    assert [one.parent for one in (*queues, *leases)] == [request.span_id] * 4
    assert [one.attributes["forebay.delivery"] for one in leases] == [1, 2]
    assert [one.error for one in leases] == ["a picture could not be read", ""]
    follow([queues[0], leases[0]])
    follow([queues[1], leases[1]])
    # the queue had the task back before the worker knew it, and not before it had given it out
    assert leases[0].start_ns < queues[1].start_ns
    assert queues[1].end_ns > leases[0].end_ns
    within(queues[0], request)
    assert [one.parent for one in seen.named("decode")] == [leases[1].span_id]
    assert len({one.span_id for one in seen.spans}) == len(seen.spans)


async def test_a_trace_that_its_caller_does_not_want_kept_is_not_sent(
    redis: Redis, tmp_path: Path, decoders: DecoderPool, engine: Engine
) -> None:
    seen = await traced(redis, tmp_path, decoders, engine, flags="00")
    assert seen.spans == []


async def test_a_refusal_is_a_span_with_its_code(
    redis: Redis, tmp_path: Path, decoders: DecoderPool
) -> None:
    with collecting() as collector:
        terms = OtlpTerms(collector.url, metrics_every_s=0)
        async with (
            OtlpExporter(terms, Origin("forebay", "1", "api"), Metrics()) as spans,
            open_door(redis, tmp_path / "blobs", decoders, spans=spans) as door,
        ):
            asked = {"model": "none", "messages": [{"role": "user", "content": "hello"}]}
            refused = await door.http.post("/v1/chat/completions", json=asked)
            assert refused.status_code == 404
            await door.http.get("/healthz")
    (admit,) = collector.named("admit")
    (request,) = collector.named("POST /v1/chat/completions")
    assert admit.error == "model_not_found"
    assert (admit.parent, request.parent, request.error) == (request.span_id, "", "")
    assert {one.name for one in collector.spans} == {"admit", "POST /v1/chat/completions"}
