from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.engine.kv_blocks import BlockPool, IntegrityError


def test_taking_is_all_or_nothing() -> None:
    pool = BlockPool(4, 16)
    assert pool.take(5) is None
    assert pool.free == 4
    assert sorted(pool.take(4) or ()) == [0, 1, 2, 3]
    assert pool.take(1) is None
    assert pool.take(0) == []


def test_a_shared_block_is_free_when_its_last_holder_lets_go() -> None:
    pool = BlockPool(2, 16)
    blocks = pool.take(2)
    assert blocks is not None
    pool.share(blocks[:1])
    pool.release(blocks)
    assert pool.free == 1
    pool.check([blocks[:1]])
    pool.release(blocks[:1])
    assert pool.free == 2


def test_a_free_block_can_be_neither_released_nor_shared() -> None:
    pool = BlockPool(1, 16)
    with pytest.raises(ValueError, match="free"):
        pool.release([0])
    with pytest.raises(ValueError, match="free"):
        pool.share([0])


def test_a_lost_block_is_found_by_the_check() -> None:
    pool = BlockPool(3, 16)
    pool.take(2)
    with pytest.raises(IntegrityError):
        pool.check([])


@given(st.integers(0, 1000), st.integers(1, 64))
def test_blocks_hold_their_tokens_without_one_too_many(tokens: int, size: int) -> None:
    blocks = BlockPool(1, size).blocks_for(tokens)
    assert tokens <= blocks * size < tokens + size


@given(st.lists(st.integers(0, 6), max_size=30))
def test_blocks_are_conserved(amounts: list[int]) -> None:
    pool = BlockPool(10, 4)
    held: list[list[int]] = []
    for amount in amounts:
        taken = pool.take(amount)
        if taken is None:
            pool.release(held.pop(0))
        else:
            held.append(taken)
        pool.check(held)
        assert pool.used + pool.free == pool.total
