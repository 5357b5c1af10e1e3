"""A worker's engine in front of vLLM itself, where it is installed.

``FOREBAY_TEST_VLLM`` is the path of the ``vllm`` executable, ``FOREBAY_TEST_VLLM_MODEL`` a
checkpoint folder that it serves. It takes minutes to start.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from forebay.core.events import EngineEvent, Failed, Finished, FinishReason, TokenDelta
from forebay.core.request import (
    ImagePart,
    InferenceRequest,
    Message,
    Role,
    SamplingParams,
    TaskId,
    Terms,
    TextPart,
)
from forebay.engine.upstream.engine import UpstreamEngine
from forebay.engine.upstream.transport import Address
from scripts.running_stack import free_port

VLLM = os.environ.get("FOREBAY_TEST_VLLM", "")
MODEL = os.environ.get("FOREBAY_TEST_VLLM_MODEL", "")
START_LIMIT_S = 1200
WAIT_S = 300

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(START_LIMIT_S + 600),
    pytest.mark.skipif(
        not (VLLM and MODEL),
        reason="vLLM is not installed: FOREBAY_TEST_VLLM and FOREBAY_TEST_VLLM_MODEL name it",
    ),
]


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """vLLM's server on the checkpoint; yields its address."""
    port, folder = free_port(), tmp_path_factory.mktemp("vllm")
    command = [VLLM, "serve", MODEL, "--served-model-name", "m", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--max-model-len", "4096", "--dtype", "float32"]
    command += ["--skip-mm-profiling", "--limit-mm-per-prompt", '{"image": 1, "video": 0}']
    environment = {**os.environ, "VLLM_CPU_OMP_THREADS_BIND": "0-1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    environment.pop("PYTHONPATH", None)  # its Python is another one
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env=environment, cwd=folder, start_new_session=True
        )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
        print((folder / "log").read_text(errors="replace")[-4000:])


@pytest.fixture
async def engine(vllm: str) -> AsyncIterator[UpstreamEngine]:
    engine = UpstreamEngine(Address(vllm, idle_s=WAIT_S), unpublished=64, answer_s=WAIT_S)
    engine.start()
    await engine.wait_accepting(START_LIMIT_S)
    assert engine.ready, "vLLM did not come up; its log is above"
    yield engine
    await engine.stop()


def picture(shade: int) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (168, 112), (shade, 255 - shade, 90)).save(content, "JPEG")
    return content.getvalue()


async def send(engine: UpstreamEngine, name: str, content: bytes, sampling: SamplingParams) -> None:
    sha256, run = hashlib.sha256(content).hexdigest(), TaskId(name)
    parts = (ImagePart(sha256, 168, 112), TextPart("what is it"))
    request = InferenceRequest("ours", (Message(Role.USER, parts),), sampling)
    engine.add(run, await engine.prepare(run, request, {sha256: content}, Terms()))


async def ends(engine: UpstreamEngine, count: int) -> list[EngineEvent]:
    events: list[EngineEvent] = []
    async with asyncio.timeout(WAIT_S):
        while sum(not isinstance(one, TokenDelta) for one in events) < count:
            events += await engine.next_events()
    return events


async def running(vllm: str) -> float:
    """Return how many requests vLLM says that it runs."""
    async with httpx.AsyncClient(trust_env=False, timeout=WAIT_S) as client:
        text = (await client.get(f"{vllm}/metrics")).text
    lines = [line for line in text.splitlines() if line.startswith("vllm:num_requests_running{")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


async def test_pictures_are_answered_streamed_and_counted(engine: UpstreamEngine) -> None:
    for index in range(4):
        await send(engine, f"run-{index}", picture(index * 60), SamplingParams(max_tokens=6))
    events = await ends(engine, 4)
    for index in range(4):
        mine = [one for one in events if one.task_id == f"run-{index}"]
        last = mine[-1]
        assert isinstance(last, Finished)
        assert last.reason in (FinishReason.LENGTH, FinishReason.STOP)
        assert 1 <= last.usage.completion_tokens <= 6
        assert last.usage.prompt_tokens > 24  # 6 x 4 visual tokens, and the question's
        assert "".join(one.text for one in mine if isinstance(one, TokenDelta)) == last.text


async def test_greedy_answers_repeat(engine: UpstreamEngine) -> None:
    await send(engine, "one", picture(7), SamplingParams(max_tokens=8))
    one = (await ends(engine, 1))[-1]
    await send(engine, "two", picture(7), SamplingParams(max_tokens=8))
    two = (await ends(engine, 1))[-1]
    assert isinstance(one, Finished)
    assert isinstance(two, Finished)
    assert (one.text, one.usage) == (two.text, two.usage)


async def test_what_cannot_fit_is_the_requests_own_fault(engine: UpstreamEngine, vllm: str) -> None:
    await send(engine, "long", picture(9), SamplingParams(max_tokens=100_000))
    event = (await ends(engine, 1))[-1]
    assert isinstance(event, Failed)
    assert event.code in ("invalid_request", "prompt_too_long")
    assert vllm.removeprefix("http://") not in event.message
    assert engine.accepting


async def test_an_abort_ends_the_work_there(engine: UpstreamEngine, vllm: str) -> None:
    await send(engine, "gone", picture(5), SamplingParams(max_tokens=3500))
    assert await engine.next_events()
    assert await running(vllm) == 1
    engine.abort(TaskId("gone"))
    async with asyncio.timeout(WAIT_S):
        while await running(vllm) > 0:  # noqa: ASYNC110 - it is another process
            await asyncio.sleep(0.2)
    assert engine.accepting


def test_the_checkpoint_is_there() -> None:
    assert (Path(MODEL) / "config.json").is_file()
