"""Figures in the queue's server: one process leads, all have the same points, none is for ever."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from forebay.queue import live
from forebay.queue.live import BEFORE_ALL, LiveStore
from forebay.queue.schema import Keys
from tests.queue.key_check import find_leaks

KEYS = Keys("q:access")


@pytest.fixture
async def store(redis: Redis) -> AsyncIterator[LiveStore]:
    await redis.flushdb()
    yield LiveStore(redis, "q")
    await redis.flushdb()


async def test_one_process_leads_and_is_given_all_reports(store: LiveStore) -> None:
    first = await store.beat("one", "1", BEFORE_ALL, BEFORE_ALL)
    other = await store.beat("two", "2", BEFORE_ALL, BEFORE_ALL)
    assert (first.leads, first.reports) == (True, {"one": "1"})
    assert (other.leads, other.reports) == (False, {})
    again = await store.beat("one", "3", BEFORE_ALL, BEFORE_ALL)
    assert again.reports == {"one": "3", "two": "2"}


async def test_only_the_leader_keeps_points_and_all_get_each_once(store: LiveStore) -> None:
    await store.beat("one", "", BEFORE_ALL, BEFORE_ALL)
    assert await store.keep("two", "{}", "stray") is None
    places = [await store.keep("one", f'"{n}"', f"p{n}", "mean" if n == 2 else "") for n in "123"]
    del places
    seen = await store.beat("two", "", BEFORE_ALL, BEFORE_ALL)
    assert [text for _, text in seen.fine] == ["p1", "p2", "p3"]
    assert seen.light == '"3"'
    last = seen.fine[-1][0]
    assert (await store.beat("two", "", last, BEFORE_ALL)).fine == []
    assert [text async for points in store.fine() for _, text in points] == ["p1", "p2", "p3"]


async def test_another_takes_over_from_a_leader_that_has_fallen_silent(
    store: LiveStore, redis: Redis
) -> None:
    assert (await store.beat("one", "", BEFORE_ALL, BEFORE_ALL)).leads
    await redis.delete(f"{KEYS.prefix}live_leader")  # as its time to live does
    assert (await store.beat("two", "", BEFORE_ALL, BEFORE_ALL)).leads
    assert await store.keep("one", "{}", "late") is None


async def test_the_rings_are_bounded_and_nothing_stays_for_ever(
    store: LiveStore, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "FINE_POINTS", 5)
    monkeypatch.setattr(live, "AT_ONCE", 2)
    await store.beat("one", "", BEFORE_ALL, BEFORE_ALL)
    for n in range(9):
        await store.keep("one", "{}", f"p{n}", f"c{n}")
    assert [text async for some in store.fine() for _, text in some] == [
        f"p{n}" for n in range(4, 9)
    ]
    assert len([text async for some in store.coarse() for _, text in some]) == 9
    assert await find_leaks(redis, KEYS) == []
    for name in ("live", "live_coarse", "live_light", "live_leader", "live_reports"):
        assert await redis.pttl(KEYS.prefix + name) > 0
