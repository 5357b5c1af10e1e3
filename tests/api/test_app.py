"""What holds for every route: ids, limits, error forms, health, metrics, the log."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys

import httpx
import pytest
import structlog

from forebay.api.app import create_app
from forebay.api.services import DoorSettings
from forebay.ops.metrics import Metrics
from forebay.queue.connection import connect
from forebay.queue.embedded import EmbeddedValkey
from tests.admission.pictures import picture
from tests.api.door import MODEL, Door, open_door, working

CHAT = "/v1/chat/completions"
ASK = {"model": MODEL, "messages": [{"role": "user", "content": "a secret question"}]}


def test_the_door_loads_no_torch_no_numpy_and_no_picture_codec():
    code = (
        "import sys, forebay.api.app, forebay.api.serve;"
        "print([name for name in ('torch', 'numpy', 'PIL', 'tokenizers') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert shown.stdout.strip() == "[]"


@pytest.mark.parametrize("path", ["/healthz", "/nowhere", "/result", "/v1/models", "/v1/nowhere"])
async def test_every_response_has_a_request_id(door, path):
    assert len((await door.http.get(path)).headers["X-Request-Id"]) == 32
    mine = await door.http.get(path, headers={"X-Request-Id": "trace-7.a"})
    assert mine.headers["X-Request-Id"] == "trace-7.a"
    bad = await door.http.get(path, headers={"X-Request-Id": "a b\tc"})
    assert bad.headers["X-Request-Id"] != "a b\tc"


async def test_an_unknown_path_and_a_wrong_method_take_the_form_of_their_contract(door):
    openai_like = await door.http.get("/v1/nowhere")
    assert openai_like.status_code == 404
    assert openai_like.json()["error"]["code"] == "no_such_route"
    plain = await door.http.get("/nowhere")
    assert (plain.status_code, plain.json()["code"]) == (404, "no_such_route")
    wrong = await door.http.get("/predict")
    assert wrong.status_code == 405
    assert wrong.headers["Allow"] == "POST"
    several = await door.http.patch("/v1/tasks")
    assert (several.status_code, several.headers["Allow"]) == (405, "GET, POST")


async def test_an_unforeseen_error_is_a_500_in_form_with_an_id(door, monkeypatch):
    async def broken(*_):
        raise RuntimeError("the secret detail")

    monkeypatch.setattr(type(door.queue), "get", broken)
    failed = await door.http.get("/result", params={"task_id": "x"})
    assert failed.status_code == 500
    assert failed.json() == {"error": "internal error", "code": "internal_error"}
    assert "X-Request-Id" in failed.headers


@pytest.fixture
async def narrow(redis, tmp_path, decoders):
    settings = DoorSettings(max_body_bytes=10_000)
    async with open_door(redis, tmp_path, decoders, settings=settings) as door:
        yield door


async def chunks(total: int):
    for _ in range(total // 1000):
        yield b"x" * 1000


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_over_the_limit_is_refused_announced_or_not(narrow, announced):
    content = b"x" * 20_000 if announced else chunks(20_000)
    refused = await narrow.http.post(CHAT, content=content)
    assert refused.status_code == 413
    assert refused.json()["error"]["code"] == "body_too_large"
    assert "the limit is 10000" in refused.text
    assert await narrow.waiting() == 0


async def test_an_announced_body_over_the_limit_is_refused_unread(narrow):
    refused = await narrow.http.post("/predict", files={"image": bytes(20_000)})
    assert (refused.status_code, refused.json()["code"]) == (413, "body_too_large")


async def test_a_picture_that_streams_past_the_limit_is_refused(narrow):
    async def multipart():
        yield b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        async for chunk in chunks(20_000):
            yield chunk
        yield b"\r\n--x--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    refused = await narrow.http.post("/predict", content=multipart(), headers=headers)
    assert refused.status_code == 413
    assert refused.json()["code"] == "body_too_large"


async def test_health_follows_the_workers(door):
    assert (await door.http.get("/healthz")).json() == {"status": "alive"}
    for path in ("/ready", "/health"):
        refused = await door.http.get(path)
        assert refused.status_code == 503
        assert "Retry-After" in refused.headers
    async with working(door):
        await asyncio.sleep(0.2)
        assert (await door.http.get("/ready")).json() == {"status": "ready", "workers": 1}
        healthy = await door.http.get("/health")
        assert healthy.json() == {"status": "ok", "model_loaded": True}


async def test_metrics_count_requests_by_route_and_the_queue_by_place(door):
    await door.http.post("/predict", files={"image": picture()}, data={"prompt": "?"})
    await door.http.get("/result", params={"task_id": "nobody"})
    await door.http.get("/some/random/path")
    await door.http.post(CHAT, json={**ASK, "model": "other"})
    shown = await door.http.get("/metrics")
    assert shown.headers["Content-Type"].startswith("text/plain")
    for line in (
        'forebay_http_requests_total{method="POST",route="/predict",status="200"} 1.0',
        'forebay_http_requests_total{method="GET",route="/result",status="404"} 1.0',
        'forebay_http_requests_total{method="GET",route="unmatched",status="404"} 1.0',
        'forebay_refused_total{code="model_not_found"} 1.0',
        'forebay_queue_tasks{place="waiting"} 1.0',
        "forebay_queue_up 1.0",
        "forebay_admitted_total 1.0",
        "forebay_picture_decode_seconds_count 1.0",
    ):
        assert line in shown.text, line
    assert "/some/random/path" not in shown.text


async def test_the_log_has_a_line_a_request_and_never_what_was_asked(door):
    with structlog.testing.capture_logs() as lines:
        async with working(door):
            await door.http.post(f"{CHAT}?key=hidden", json=ASK)
    [line] = [line for line in lines if line["event"] == "request"]
    assert (line["method"], line["path"], line["status"]) == ("POST", CHAT, 200)
    assert "secret question" not in str(lines)
    assert "hidden" not in str(lines)


async def test_without_its_queue_the_door_refuses_at_once_and_recovers(tmp_path, decoders):
    server = EmbeddedValkey(tmp_path / "valkey")
    server.start()
    redis = connect(server.url)
    try:
        async with open_door(redis, tmp_path / "blobs", decoders) as door:
            await asyncio.to_thread(server.stop)
            await _refused(door)
            await asyncio.to_thread(server.start)
            await _found_again(door)
            async with working(door):
                assert (await door.http.post(CHAT, json=ASK)).status_code == 200
    finally:
        await redis.aclose()
        await asyncio.to_thread(server.stop)


async def _refused(door: Door) -> None:
    async with asyncio.timeout(10):
        for refused in (
            await door.http.post(CHAT, json=ASK),
            await door.http.post("/predict", files={"image": picture()}, data={"prompt": "?"}),
            await door.http.get("/result", params={"task_id": "x"}),
            await door.http.get("/ready"),
        ):
            assert refused.status_code == 503
            assert "queue_unavailable" in refused.text
            assert "valkey" not in refused.text  # where it lies is for the log
            assert "Retry-After" in refused.headers
        assert (await door.http.get("/healthz")).status_code == 200
        assert "forebay_queue_up 0.0" in (await door.http.get("/metrics")).text


async def _found_again(door: Door) -> None:
    """Return when the door has seen that the server is back: it looks once in a while."""
    async with asyncio.timeout(30):
        while "forebay_queue_up 1.0" not in (await door.http.get("/metrics")).text:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_the_page_and_its_files_come_under_a_strict_policy(door):
    for path in ("/", "/ui/app.js"):
        page = await door.http.get(path)
        assert page.status_code == 200
        assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    for path in ("/ui/../config.py", "/ui/%2e%2e/config.py", "/samples/../config.py"):
        assert (await door.http.get(path)).status_code == 404


async def test_the_openapi_description_is_served(door):
    paths = (await door.http.get("/openapi.json")).json()["paths"]
    assert {"/predict", "/result", CHAT, "/v1/models", "/ready"} <= set(paths)
    form = paths[CHAT]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert {"model", "messages", "stream", "stop"} <= set(form["properties"])
    assert "$ref" not in str(form)


async def test_the_docs_show_every_route_with_its_form_and_load_nothing_from_elsewhere(door):
    paths = (await door.http.get("/openapi.json")).json()["paths"]
    docs = await door.http.get("/docs")
    assert docs.status_code == 200
    assert "default-src 'none'" in docs.headers["Content-Security-Policy"]
    for word in (*paths, "messages", "image_url", "max_completion_tokens", "prompt", "task_id"):
        assert word in docs.text, word
    assert "//" not in docs.text
    assert "<script" not in docs.text
    for linked in re.findall(r'href="([^".][^"]*)"', docs.text):
        assert (await door.http.get(f"/{linked}")).status_code == 200
    assert (await door.http.get("/redoc")).status_code == 404


async def test_a_label_takes_no_value_that_a_client_chose(door):
    app = create_app(door.services)
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        for at in range(20):
            await http.request(f"BREW{at}", f"/no/such/place/{at}")
    counted = door.services.metrics.registry.get_sample_value(
        "forebay_http_requests_total", {"method": "other", "route": "unmatched", "status": "404"}
    )
    assert counted == 20


async def test_tenants_are_told_apart_only_where_wanted_and_only_so_many():
    quiet, loud = Metrics("m"), Metrics("m", tenants=2)
    for metrics in (quiet, loud):
        for tenant in ("a", "b", "c", "d", "a"):
            metrics.see_tenant(tenant)
    assert b"forebay_tenant_admitted_total{" not in quiet.render()
    values = [
        loud.registry.get_sample_value("forebay_tenant_admitted_total", {"tenant": one})
        for one in ("a", "b", "c", "other")
    ]
    assert values == [2, 1, None, 2]


@pytest.mark.parametrize(
    ("path", "leads_to"),
    [("/healthz/", "/healthz"), ("/ui", "/ui/"), ("/v1/tasks/?limit=2", "/v1/tasks?limit=2")],
)
async def test_a_slash_too_many_leads_to_the_right_path_and_to_no_other_host(
    door: Door, path: str, leads_to: str
) -> None:
    answer = await door.http.get(path, headers={"Host": "localhost"})
    assert answer.status_code == 307
    assert "//" not in answer.headers["Location"]
    assert answer.url.join(answer.headers["Location"]).raw_path.decode() == leads_to


@pytest.mark.parametrize("path", ["//evil.example/", "/healthz//", "/v1/nothing/", "//healthz/"])
async def test_what_no_slash_mends_is_no_route(door: Door, path: str) -> None:
    answer = await door.http.get(door.url + path)
    assert (answer.status_code, "location" in answer.headers) == (404, False)
