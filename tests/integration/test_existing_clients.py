"""The clients of the four services that people run today, played against a whole stack as they are.

Each knows its own service's addresses, fields and words, and nothing of Forebay.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from forebay.config import PACKAGE_FOLDER
from tests.admission.pictures import hostile, png_that_claims
from tests.integration.stack import WAIT_S, ServeProcess, serving

SAMPLES = json.loads((PACKAGE_FOLDER / "samples" / "samples.json").read_text(encoding="utf-8"))
PRICE = next(one for one in SAMPLES if one["skill"] == "price")
REVIEWS = [one for one in SAMPLES if one["skill"] == "review"][:4]
AT_ONCE = 10


def picture_of(sample: dict[str, str]) -> bytes:
    return (PACKAGE_FOLDER / "samples" / sample["file"]).read_bytes()


class Samples(SimpleHTTPRequestHandler):
    """Serves the sample pictures, in silence."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, directory=str(PACKAGE_FOLDER / "samples"), **options)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def pictures() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Samples) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, pictures: str) -> Iterator[ServeProcess]:
    port = pictures.rpartition(":")[2]
    settings = ["fetch_urls=true", "fetch_allow=127.0.0.1", f"fetch_ports={port}"]
    settings.append("trusted_proxies=127.0.0.1")  # one of the clients comes through an ingress
    options = [word for one in settings for word in ("--set", one)]
    with serving(Path("demo"), tmp_path_factory.mktemp("stack"), *options) as stack:
        stack.until(lambda: stack.client.get("/ready").status_code == 200, "readiness")
        yield stack


@pytest.fixture
def http(stack: ServeProcess) -> httpx.Client:
    return stack.client


class QueueServiceClient:
    """Submits a picture, then asks every so often."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def submit(self, picture: bytes, prompt: str, **more: str) -> str:
        files = {"image": ("a.jpg", picture, "image/jpeg")}
        reply = self._http.post("/predict", files=files, data={"prompt": prompt, **more})
        assert reply.status_code == 200, reply.text
        body = reply.json()
        assert list(body) == ["status", "task_id", "message"]
        assert body["status"] == "submitted"
        return str(body["task_id"])

    def answer(self, task_id: str) -> dict[str, Any]:
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            reply = self._http.get("/result", params={"task_id": task_id})
            assert reply.status_code == 200
            body: dict[str, Any] = reply.json()
            if body["status"] != "pending":
                return body
            assert body == {"status": "pending", "task_id": task_id}
            time.sleep(0.1)
        raise AssertionError("no answer")


def test_the_queue_services_client(http: httpx.Client) -> None:
    client = QueueServiceClient(http)
    task_id = client.submit(picture_of(PRICE), PRICE["question"])
    answer = client.answer(task_id)
    assert list(answer) == ["task_id", "status", "response", "elapsed_ms", "model"]
    assert (answer["task_id"], answer["status"]) == (task_id, "success")
    assert answer["response"] == PRICE["answer"]
    assert answer["elapsed_ms"] >= 0
    missing = http.post("/predict", data={"prompt": "What?"})
    assert (missing.status_code, missing.json()) == (400, {"error": "Missing image or prompt"})
    assert http.get("/result").status_code == 400


def test_the_queue_services_clients_at_once_are_each_answered_and_a_vip_besides(
    http: httpx.Client,
) -> None:
    client, picture = QueueServiceClient(http), picture_of(PRICE)
    with ThreadPoolExecutor(AT_ONCE) as threads:
        task_ids = list(
            threads.map(
                lambda n: client.submit(picture, f"{PRICE['question']} {n}"), range(AT_ONCE)
            )
        )
    vip = client.submit(picture, PRICE["question"], priority="vip")
    answers = [client.answer(one) for one in (*task_ids, vip)]
    assert {one["status"] for one in answers} == {"success"}
    assert len({one["task_id"] for one in answers}) == AT_ONCE + 1


def test_the_highly_available_services_client(http: httpx.Client) -> None:
    picture = picture_of(PRICE)
    asked = {
        "files": {"image": ("a.jpg", picture, "image/jpeg")},
        "data": {"prompt": PRICE["question"]},
        "headers": {"Host": "glm-api.example.com"},
    }
    first, again = (http.post("/v1/infer", **asked) for _ in range(2))
    assert first.status_code == again.status_code == 200
    assert first.json()["response"] == again.json()["response"] == PRICE["answer"]
    assert again.headers["X-Forebay-Cache"] == "hit"
    for path in ("/healthz", "/ready"):
        assert http.get(path).status_code == 200
    assert "\nforebay_http_requests_total{" in http.get("/metrics").text


def test_the_highly_available_service_checks_its_uploads(http: httpx.Client) -> None:
    uploads = {**hostile(), "giant": png_that_claims(50_000, 50_000), "large": b"x" * (21 * 2**20)}
    for name, content in uploads.items():
        files = {"image": ("a.jpg", content, "image/jpeg")}
        refused = http.post("/v1/infer", files=files, data={"prompt": "What?"})
        assert refused.status_code in (413, 422), name
    assert http.get("/ready").status_code == 200


@pytest.mark.parametrize("sample", REVIEWS, ids=[one["file"] for one in REVIEWS])
@pytest.mark.parametrize("form", ["url", "data", "base64"])
def test_the_high_concurrency_services_client(
    http: httpx.Client, pictures: str, sample: dict[str, str], form: str
) -> None:
    encoded = base64.b64encode(picture_of(sample)).decode()
    image = {
        "url": f"{pictures}/{sample['file']}",
        "data": f"data:image/jpeg;base64,{encoded}",
        "base64": encoded,
    }[form]
    body = {"image": image, "prompt": sample["question"], "max_tokens": 256}
    reply = http.post("/v1/multimodal/inference", json=body)
    assert reply.status_code == 200, reply.text
    answer = reply.json()
    assert list(answer) == [
        "result", "reasons", "confidence", "inference_time_ms", "tokens_generated",
    ]  # fmt: skip
    approved = sample["answer"].startswith(("approve", "通过"))
    assert answer["result"] == ("approve" if approved else "reject")
    assert bool(answer["reasons"]) != approved
    assert 0.5 < answer["confidence"] <= 1
    assert answer["tokens_generated"] > 0


def test_the_high_concurrency_services_other_prompts_and_health(http: httpx.Client) -> None:
    image = base64.b64encode(picture_of(PRICE)).decode()
    body = {"image": image, "prompt": PRICE["question"], "max_tokens": 64}
    answer = http.post("/v1/multimodal/inference", json=body).json()
    assert (answer["result"], answer["reasons"]) == (PRICE["answer"], [])
    health = http.get("/health")
    assert (health.status_code, health.json()) == (200, {"status": "ok", "model_loaded": True})


def test_the_console_services_client(stack: ServeProcess, http: httpx.Client) -> None:
    text = {"role": "user", "content": "你好"}
    body = {"model": "glm-4v-flash", "messages": [text]}
    plain = http.post("/v1/chat/completions", json=body)
    assert plain.status_code == 200, plain.text
    choice = plain.json()["choices"][0]
    assert choice["message"]["role"] == "assistant"
    encoded = base64.b64encode(picture_of(PRICE)).decode()
    picture = {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{encoded}"}}
    question = {"role": "user", "content": [picture, {"type": "text", "text": PRICE["question"]}]}
    with (
        httpx.Client(trust_env=False) as direct,
        openai.OpenAI(base_url=f"{stack.url}/v1", api_key="EMPTY", http_client=direct) as client,
    ):
        answer = client.chat.completions.create(model="glm-4v-flash", messages=[question])
        assert answer.choices[0].message.content == PRICE["answer"]
        chunks = client.chat.completions.create(
            model="glm-4v-flash", messages=[question], stream=True
        )
        streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert streamed == PRICE["answer"]
