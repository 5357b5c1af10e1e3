"""Canaries by HTTP: seen, set, logged, every deed recorded, nonsense refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from forebay.access.caller import Scope
from forebay.admission.pool import DecoderPool
from forebay.api.canary.desk import CanaryDesk
from forebay.ops.canary.judgement import Terms
from forebay.queue.canary import RedisCanary
from forebay.queue.limits import QueueLimits
from forebay.queue.opening import Place
from tests.access.doors import bearer, guarded, make_key
from tests.api.door import Door

PATH = "/v1/admin/canary"


@asynccontextmanager
async def door_with_canaries(
    redis: Redis, folder: Path, decoders: DecoderPool, scope: Scope = Scope.ADMIN
) -> AsyncIterator[tuple[Door, dict[str, str]]]:
    desk = CanaryDesk(RedisCanary([Place(redis, "test", QueueLimits())]), Terms())
    async with guarded(redis, folder, decoders, canary=desk) as (door, access):
        yield door, bearer(await make_key(access, scope))


async def test_the_share_is_seen_set_and_logged_and_the_deed_recorded(
    redis: Redis, tmp_path: Path, decoders: DecoderPool
) -> None:
    async with door_with_canaries(redis, tmp_path, decoders) as (door, admin):
        before = (await door.http.get(PATH, headers=admin)).json()
        put = await door.http.put(PATH, json={"share": 0.05}, headers=admin)
        after = (await door.http.get(PATH, headers=admin)).json()
        log = (await door.http.get(f"{PATH}/log", headers=admin)).json()["data"]
        deeds = (await door.http.get("/v1/admin/audit", headers=admin)).json()["data"]
    assert (before["share"], before["last"], before["taken"]) == (0, None, None)
    assert put.status_code == 200
    assert (put.json()["share"], after["share"], after["rolled_back"]) == (0.05, 0.05, False)
    [entry] = log
    assert (entry["share"], entry["before"], entry["reason"]) == (0.05, 0, "set")
    assert entry["by"] == deeds[0]["actor"]
    assert (deeds[0]["action"], deeds[0]["target"]) == ("canary.set", "0.05")


@pytest.mark.parametrize(
    "form", [{}, {"share": -0.1}, {"share": 1.1}, {"share": "0.5"}, {"share": 0.1, "more": 1}]
)
async def test_a_share_that_makes_no_sense_is_refused(
    redis: Redis, tmp_path: Path, decoders: DecoderPool, form: dict[str, Any]
) -> None:
    async with door_with_canaries(redis, tmp_path, decoders) as (door, admin):
        reply = await door.http.put(PATH, json=form, headers=admin)
        assert reply.status_code == 400
        assert (await door.http.get(PATH, headers=admin)).json()["share"] == 0


async def test_only_administrators_see_or_set_it(
    redis: Redis, tmp_path: Path, decoders: DecoderPool
) -> None:
    async with door_with_canaries(redis, tmp_path, decoders, Scope.INFER) as (door, caller):
        codes = [
            (await door.http.get(PATH, headers=caller)).status_code,
            (await door.http.get(f"{PATH}/log", headers=caller)).status_code,
            (await door.http.put(PATH, json={"share": 1}, headers=caller)).status_code,
        ]
    assert codes == [403, 403, 403]
