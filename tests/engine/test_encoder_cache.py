from __future__ import annotations

from collections import Counter

import pytest

from forebay.engine.encoder_cache import EncoderCache
from forebay.engine.kv_blocks import IntegrityError


def test_the_least_recently_used_picture_leaves_first() -> None:
    cache: EncoderCache[int] = EncoderCache(20)
    cache.put("a", 1, 10)
    cache.put("b", 2, 10)
    cache.get("a")
    cache.put("c", 3, 10)
    assert ("a" in cache, "b" in cache, "c" in cache) == (True, False, True)
    assert cache.bytes == 20
    cache.check(Counter())


def test_a_pinned_picture_stays_over_the_capacity_until_it_is_unpinned() -> None:
    cache: EncoderCache[int] = EncoderCache(10)
    cache.pin("a")
    cache.pin("b")
    cache.put("a", 1, 10)
    cache.put("b", 2, 10)
    assert len(cache) == 2
    cache.check(Counter("ab"))
    cache.unpin("a")
    assert "a" not in cache
    assert "b" in cache


def test_a_picture_replaced_is_counted_once() -> None:
    cache: EncoderCache[int] = EncoderCache(100)
    cache.put("a", 1, 40)
    cache.put("a", 2, 30)
    assert (cache.get("a"), cache.bytes, len(cache)) == (2, 30, 1)


def test_an_unbalanced_pin_is_found() -> None:
    cache: EncoderCache[int] = EncoderCache(10)
    with pytest.raises(ValueError, match="not pinned"):
        cache.unpin("a")
    cache.pin("a")
    with pytest.raises(IntegrityError):
        cache.check(Counter())
