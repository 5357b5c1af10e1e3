"""The OpenAPI description: what it says of errors, and a tool that believes every word of it."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from forebay.admission.policy import Limits
from forebay.api import openapi
from forebay.api.app import create_app
from forebay.api.services import DoorSettings
from forebay.core.errors import all_errors
from tests.api.door import PROFILE, Door, open_door, working
from tests.api.schemathesis_run import finds_nothing

METHODS = {"get", "post", "delete"}


async def described(door: Door) -> list[tuple[str, dict[str, Any]]]:
    paths = (await door.http.get("/openapi.json")).json()["paths"]
    return [
        (path, item[method]) for path, item in paths.items() for method in METHODS & item.keys()
    ]


def codes_of(response: dict[str, Any]) -> set[str]:
    """Return the codes that a response's schema names, whichever contract's form it has."""
    schema = response.get("content", {}).get("application/json", {}).get("schema", {})
    fields = schema.get("properties", {})
    inner = fields.get("error", {}).get("properties", fields)
    return set(inner.get("code", {}).get("enum", ()))


async def test_nobody_waits_while_it_is_made(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    answered, in_time = threading.Event(), []
    add_errors = openapi._add_errors

    def waits(description: dict[str, Any]) -> None:
        in_time.append(answered.wait(20))
        add_errors(description)

    monkeypatch.setattr(openapi, "_add_errors", waits)
    first, other = (asyncio.create_task(door.http.get("/openapi.json")) for _ in range(2))
    page = asyncio.create_task(door.http.get("/docs"))
    assert (await door.http.get("/healthz")).status_code == 200
    answered.set()
    assert (await first).json() == (await other).json()
    assert (await page).status_code == 200
    assert in_time == [True]


async def test_under_a_path_of_a_proxy_it_names_that(door: Door) -> None:
    mounted = httpx.ASGITransport(create_app(door.services), root_path="/vision")
    async with httpx.AsyncClient(transport=mounted, base_url="http://localhost") as http:
        told = (await http.get("/vision/openapi.json")).json()
    assert told["servers"] == [{"url": "/vision"}]
    assert "/v1/tasks" in told["paths"]


async def test_every_route_names_the_codes_of_its_errors(door: Door) -> None:
    for path, route in await described(door):
        for status, response in route["responses"].items():
            if int(status) >= 400 and path != "/health":
                known = {one.code for one in all_errors() if one.status == int(status)}
                assert codes_of(response), (path, status)
                assert codes_of(response) <= known, (path, status)
        assert {"400", "408", "429", "431", "500", "503"} <= route["responses"].keys()


async def test_a_route_that_takes_requests_names_every_error_with_its_mend(door: Door) -> None:
    submitting = [
        route
        for path, route in await described(door)
        if path in {"/predict", "/v1/chat/completions", "/v1/tasks"} and "requestBody" in route
    ]
    assert len(submitting) == 3
    for route in submitting:
        told = set().union(*(codes_of(one) for one in route["responses"].values()))
        assert told == {one.code for one in all_errors()}
        for one in all_errors():
            assert one.mend in route["responses"][str(one.status)]["description"]


@pytest.mark.parametrize(
    "selected",
    [
        ("--exclude-method", "POST", "--phases", "examples,coverage,fuzzing"),
        ("--include-method", "POST", "--phases", "examples,fuzzing"),
    ],
    ids=["questions", "submissions"],
)
async def test_schemathesis_finds_nothing(
    selected: tuple[str, ...], redis, tmp_path: Path, decoders
) -> None:
    limits = Limits(context_tokens=PROFILE.context_tokens, max_image_pixels=1_000_000)
    settings = DoorSettings(answer_timeout_s=3)
    async with (
        open_door(redis, tmp_path / "blobs", decoders, settings=settings, limits=limits) as door,
        working(door),
    ):
        await finds_nothing(door.url, tmp_path, *selected)
