"""How the page's files travel, and what is met at the root of a page's own port."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from forebay.api.front_page import FrontPageMiddleware
from forebay.api.services import DoorSettings
from forebay.config import Settings
from forebay.queue.embedded import EmbeddedValkey
from tests.api.door import MODEL, open_door
from tests.api.test_serve import write_model

UI = Path(__file__).resolve().parents[2] / "forebay" / "ui"
SCRIPT = "/ui/words.en.js"


async def test_text_travels_compressed_to_whoever_takes_it_so(door):
    content = (UI / "words.en.js").read_bytes()
    packed = await door.http.get(SCRIPT, headers={"Accept-Encoding": "gzip"})
    plain = await door.http.get(SCRIPT, headers={"Accept-Encoding": "identity"})
    assert (packed.headers["Content-Encoding"], packed.content) == ("gzip", content)
    assert int(packed.headers["Content-Length"]) < len(content) / 2
    assert "Content-Encoding" not in plain.headers
    assert plain.content == content
    for answer in (packed, plain):
        assert answer.headers["Content-Type"].startswith("text/javascript")
        assert answer.headers["Vary"] == "Accept-Encoding"
        again = await door.http.get(SCRIPT, headers={"If-None-Match": answer.headers["ETag"]})
        assert (again.status_code, again.content) == (304, b"")


async def test_a_picture_travels_as_it_is(door):
    answer = await door.http.get("/samples/00-price-en.jpg", headers={"Accept-Encoding": "gzip"})
    assert "Content-Encoding" not in answer.headers
    assert answer.headers["Content-Type"] == "image/jpeg"


async def test_the_list_of_models_tells_what_a_page_needs_to_price_a_picture(
    redis, tmp_path, decoders
):
    async with open_door(redis, tmp_path, decoders, settings=DoorSettings(image_side=512)) as door:
        told = (await door.http.get(f"/v1/models/{MODEL}")).json()["vision"]
        rules = door.services.profile.rules
    assert told["image_side"] == 512
    assert told["fetches_urls"] is False
    assert told["max_images"] == door.services.limits.max_images
    assert told["grid"] == {name: getattr(rules, name) for name in told["grid"]}
    assert len(told["grid"]) == 5


@pytest.mark.parametrize(
    ("port", "path", "met"),
    [(9001, "/", "/console"), (9001, "/v1", "/v1"), (9002, "/", "/"), (80, "/", "/")],
)
async def test_a_page_is_met_at_the_root_of_its_own_port(port: int, path: str, met: str):
    async def echo(request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.url.path)

    app = Starlette(routes=[Route("/{rest:path}", echo)])
    pages = FrontPageMiddleware(app, {9001: "/console", 9002: "/"})
    transport = httpx.ASGITransport(pages)
    async with httpx.AsyncClient(transport=transport, base_url=f"http://here:{port}") as http:
        assert (await http.get(path)).text == met


CODE = "from forebay.config import load_settings; from forebay.api.serve import run;"
CODE += "run(load_settings())"


async def test_an_api_alone_listens_on_the_ports_of_its_pages_too(
    valkey: EmbeddedValkey, tmp_path: Path
):
    ports = free_ports(2)
    settings = Settings(
        model=str(write_model(tmp_path / "model")),
        queue_url=valkey.url,
        data_dir=tmp_path / "data",
        port=ports[0],
        playground_port=ports[1],
        drain_s=2,
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", CODE),
        env={**os.environ, **settings.to_environment(), "FOREBAY_CONFIG": ""},
        cwd=tmp_path,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with httpx.AsyncClient(timeout=30, trust_env=False) as http:
            for port in ports:
                async with asyncio.timeout(60):
                    while not answers(port):  # noqa: ASYNC110 - another process
                        await asyncio.sleep(0.05)
                assert "Forebay" in (await http.get(f"http://127.0.0.1:{port}/")).text
                listed = (await http.get(f"http://127.0.0.1:{port}/v1/models")).text
                assert json.loads(listed)["data"]
    finally:
        process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.wait(), 60)


def free_ports(count: int) -> list[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    found = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return found


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
