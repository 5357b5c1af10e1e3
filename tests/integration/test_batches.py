"""A batch is answered whole, each line once, whatever is killed with SIGKILL in its middle."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from openai.types import Batch
from PIL import Image

from tests.integration.stack import ServeProcess, serving

LINES = 60


@pytest.fixture
def stack(model: Path, tmp_path: Path) -> Iterator[ServeProcess]:
    with serving(model, tmp_path, "--set", "answer_cache_s=0") as stack:
        yield stack


@pytest.fixture
def client(stack: ServeProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key="any", max_retries=8) as client:
        yield client


def line(at: int) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (56, 56), (at * 4 % 256, 90, 200)).save(content, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"
    parts = [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": f"what is number {at}"},
    ]
    longer = 30 + 5 * at  # the first are answered long before the last
    body = {"model": "m", "messages": [{"role": "user", "content": parts}], "max_tokens": longer}
    told = {"custom_id": f"n{at}", "method": "POST", "url": "/v1/chat/completions", "body": body}
    return json.dumps(told).encode() + b"\n"


def counts(batch: Batch) -> tuple[int, int]:
    told = batch.request_counts
    assert told is not None
    return told.completed, told.failed


def test_a_batch_outlives_the_api_and_the_worker(
    stack: ServeProcess, client: openai.OpenAI
) -> None:
    model = client.models.list().data[0].id
    content = b"".join(line(at) for at in range(LINES)).replace(b'"m"', json.dumps(model).encode())
    file = client.files.create(file=("in.jsonl", content), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )

    def completed() -> int:
        return counts(client.batches.retrieve(batch.id))[0]

    stack.until(lambda: completed() > 0, "first answers of the batch")
    client.files.delete(file.id)  # a batch that has begun does not need it any more
    worker = stack.pid_of("worker")
    assert worker is not None
    os.kill(worker, signal.SIGSTOP)  # or the batch might end before its API is back
    stack.kill_child("api")
    stack.until(lambda: stack.client.get("/healthz").is_success, "another API")
    before = completed()
    assert before < LINES, "the batch was over too soon to be struck"
    stack.kill_child("worker")
    done = stack.until(
        lambda: now if (now := client.batches.retrieve(batch.id)).status == "completed" else None,
        "end of the batch",
    )
    assert counts(done) == (LINES, 0)
    text = client.files.content(str(done.output_file_id)).text
    answers = [json.loads(one) for one in text.splitlines()]
    assert [one["custom_id"] for one in answers] == [f"n{at}" for at in range(LINES)]
    assert all(one["response"]["body"]["choices"][0]["message"]["content"] for one in answers)
    folder = stack.data_dir / "batches"
    stack.until(lambda: not list(folder.glob("batch_*")), "removal of what the batch needed")
