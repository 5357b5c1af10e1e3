"""What the OpenAPI description says of who may call is what the door does."""

from __future__ import annotations

import re
from typing import Any

import pytest

from forebay.access import gate
from forebay.access.caller import Scope
from forebay.access.rules import AccessRules
from tests.access.doors import bearer, guarded, hs256, make_key, setup, token
from tests.api.door import Door
from tests.api.schemathesis_run import finds_nothing

METHODS = ("get", "post", "delete")
OPEN = {"/", "/health", "/healthz", "/ready", "/metrics", "/health/generate", "/samples.json"}


async def described(door: Door) -> dict[str, Any]:
    told: dict[str, Any] = (await door.http.get("/openapi.json")).json()
    return told


def routes(told: dict[str, Any]) -> list[tuple[str, str, list[dict[str, list[str]]]]]:
    return [
        (method.upper(), path, item[method]["security"])
        for path, item in told["paths"].items()
        for method in METHODS
        if method in item
    ]


async def sent(door: Door, method: str, path: str, headers: dict[str, str]) -> int:
    """Send a request that asks for nothing that can be done."""
    path = re.sub(r"{\w+}", "x", path)
    return (await door.http.request(method, path, headers=headers)).status_code


async def test_each_route_lets_in_who_it_says_and_nobody_else(redis, tmp_path, decoders) -> None:
    async with guarded(redis, tmp_path, decoders) as (door, access):
        keys = {scope.value: await make_key(access, scope) for scope in Scope}
        told = await described(door)
        assert set(told["components"]["securitySchemes"]) == {"key", "keyHeader"}
        for method, path, ways in routes(told):
            if not ways:
                assert path in OPEN, path
                continue
            assert await sent(door, method, path, {}) == 401, path
            assert {name for way in ways for name in way} == {"key", "keyHeader"}
            ((needed,),) = {tuple(scopes) for way in ways for scopes in way.values()}
            for scope, key in keys.items():
                status = await sent(door, method, path, bearer(key))
                assert (status == 403) is (scope != needed), (method, path, scope, status)
                assert status != 401


@pytest.mark.parametrize(
    ("takes_keys", "tokens", "names"),
    [(True, True, {"key", "keyHeader", "token"}), (False, True, {"token"})],
)
async def test_the_ways_to_come_in_are_those_of_the_settings(
    redis, tmp_path, decoders, takes_keys, tokens, names
) -> None:
    how = setup(tmp_path, takes_keys=takes_keys, tokens=hs256() if tokens else None)
    async with guarded(redis, tmp_path, decoders, how) as (door, _):
        told = await described(door)
        assert set(told["components"]["securitySchemes"]) == names
        ways = next(ways for method, path, ways in routes(told) if path == "/v1/models")
        assert {name for way in ways for name in way} == names
        assert await sent(door, "GET", "/v1/models", bearer(token())) == 200


async def test_where_anyone_may_come_only_administration_needs_a_key(
    redis, tmp_path, decoders
) -> None:
    how = setup(tmp_path, AccessRules(anonymous=True))
    async with guarded(redis, tmp_path, decoders, how) as (door, _):
        for method, path, ways in routes(await described(door)):
            closed = await sent(door, method, path, {}) == 401
            assert closed is path.startswith("/v1/admin"), path
            assert closed is (bool(ways) and {} not in ways), path


async def test_a_tool_that_believes_it_finds_no_route_open_that_should_be_shut(
    redis, tmp_path, decoders, monkeypatch
) -> None:
    monkeypatch.setattr(gate, "GUESSES_AT_ONCE", 10_000)  # it guesses more than anybody may
    async with guarded(redis, tmp_path, decoders) as (door, access):
        key = await make_key(access, *Scope)
        await finds_nothing(
            door.url,
            tmp_path,
            *("--checks", "ignored_auth", "--phases", "fuzzing"),
            *("--include-method", "GET", "--include-path-regex", "^/v1/(models|tasks|admin)"),
            *("--header", f"Authorization: Bearer {key}"),
            examples=2,
        )
