"""Workers report and find what is wanted of them, over a real server."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from forebay.queue import fleet as fleet_module
from forebay.queue.fleet import DRAIN, FORM, Fleet, FleetLibrary
from forebay.queue.limits import QueueLimits
from forebay.queue.schema import Keys
from tests.queue.key_check import find_leaks


@pytest.fixture
def fleet(redis: Redis, keys: Keys) -> Fleet:
    return Fleet(redis, keys.name.removesuffix(":access"))


@pytest.fixture
async def keys(redis: Redis) -> AsyncIterator[Keys]:
    await redis.flushdb()
    yield Keys("q:access")
    await redis.flushdb()


async def test_a_report_is_seen_and_answered_with_what_is_wanted(fleet: Fleet) -> None:
    assert await fleet.report("a", {"kind": "worker", "n": 1}) == ""
    await fleet.order(DRAIN, "a", "b")
    assert await fleet.report("a", {"kind": "worker", "n": 2}) == DRAIN
    assert await fleet.report("a", {"kind": "worker", "n": 3}) == DRAIN  # until it is taken back
    await fleet.report("b", {"kind": "stack"})
    one, other = await fleet.members()
    says = {"form": FORM, "kind": "worker", "n": 3}
    assert (one.name, one.says, one.wanted) == ("a", says, DRAIN)
    assert (other.name, other.wanted) == ("b", DRAIN)
    assert 0 <= one.silent_s < 60
    await fleet.order("", "a")
    assert await fleet.report("a", {"kind": "worker"}) == ""
    await fleet.leave("a")
    assert [one.name for one in await fleet.members()] == ["b"]


async def test_a_member_of_a_release_with_another_form_is_left_out(
    fleet: Fleet, redis: Redis, keys: Keys
) -> None:
    await fleet.report("ours", {"kind": "worker"})
    library = FleetLibrary(redis, keys, QueueLimits())
    await library.report("older", json.dumps({"kind": "worker"}))
    await library.report("newer", json.dumps({"form": FORM + 1, "kind": 7}))
    assert [one.name for one in await fleet.members()] == ["ours"]


async def test_nothing_of_the_fleet_stays_for_ever(fleet: Fleet, redis: Redis, keys: Keys) -> None:
    await fleet.report("a", {})
    await fleet.order(DRAIN, "a")
    assert await find_leaks(redis, keys) == []
    assert await redis.pttl(f"{keys.prefix}fleet") > 0
    assert await redis.pttl(f"{keys.prefix}orders") > 0


async def test_who_is_silent_for_long_is_forgotten(
    fleet: Fleet, redis: Redis, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fleet.report("a", {"kind": "worker"})
    await redis.hset(f"{keys.prefix}fleet", "old", "1000 " + json.dumps({"kind": "worker"}))
    assert [one.name for one in await fleet.members()] == ["a"]
    assert await redis.hkeys(f"{keys.prefix}fleet") == ["a"]
    monkeypatch.setattr(fleet_module, "MOST_MEMBERS", 1)
    library = FleetLibrary(redis, keys, QueueLimits())
    assert await library.report("b", "{}") == ""
    assert await redis.hkeys(f"{keys.prefix}fleet") == ["a"]  # as many as there may be
