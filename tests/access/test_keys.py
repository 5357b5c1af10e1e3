"""API keys: made, kept, checked, replaced, ended."""

from __future__ import annotations

import asyncio
import base64
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from forebay.access.audit import AuditTrail, Deed
from forebay.access.caller import Allowance, Scope
from forebay.access.errors import AccessSetupError
from forebay.access.key_ring import KeyRing
from forebay.access.key_store import KeyStore
from forebay.access.keys import KeyId, digest, key_id_of, mint, new_key_id
from forebay.access.library import AccessLibrary
from forebay.access.opening import forget_keys
from forebay.access.secret_file import load_or_make_pepper, read_secret_file
from forebay.core.errors import InvalidRequestError, KeyNotFoundError
from forebay.core.request import Priority, Tenant

PEPPER = bytes(range(32))
TENANT = Tenant("acme")
ALLOWANCE = Allowance(rate_per_s=5.0, burst=3, tokens_per_day=10**6, top_priority=Priority(5))


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(redis: Redis, clock: Clock) -> KeyStore:
    store = KeyStore(redis, "test", PEPPER, clock)
    await store.start()
    return store


def ring_of(store: KeyStore, clock: Clock, **more) -> KeyRing:
    return KeyRing(store, clock=clock, today=clock, **more)


async def make(store: KeyStore, **more):
    return await store.create("for a test", frozenset({Scope.INFER}), TENANT, ALLOWANCE, **more)


async def test_a_key_is_good_and_what_it_may_is_kept(store: KeyStore, clock: Clock) -> None:
    key, text = await make(store)
    found = await ring_of(store, clock).find(text)
    assert found == key
    assert found.caller("::1").allowance == ALLOWANCE
    assert await store.list_keys() == [key]


async def test_nothing_in_the_server_is_the_key(store: KeyStore, redis: Redis) -> None:
    _, text = await make(store)
    secret = text[len("fb_0123456789abcdef_") :]
    async for name in redis.scan_iter("*"):
        kind = await redis.type(name)
        held = await (redis.hgetall(name) if kind == "hash" else redis.zrange(name, 0, -1))
        assert secret not in name + str(held)


async def test_keys_have_256_random_bits_and_the_mac_needs_the_pepper() -> None:
    keys = {mint(KeyId("0" * 16)) for _ in range(100)}
    assert len(keys) == 100
    secrets = [base64.urlsafe_b64decode(key[len("fb_0123456789abcdef_") :] + "=") for key in keys]
    assert {len(one) * 8 for one in secrets} == {256}
    assert len(set(secrets)) == 100
    one = keys.pop()
    assert key_id_of(one) == "0" * 16
    assert digest(PEPPER, one) != digest(bytes(32), one)


@given(st.text(max_size=120))
def test_any_text_is_read_as_a_key_or_none(text: str) -> None:
    key_id = key_id_of(text)
    assert key_id is None or text.startswith(f"fb_{key_id}_")
    digest(PEPPER, text)


async def test_another_secret_of_a_known_id_and_an_unknown_id_are_refused(
    store: KeyStore, clock: Clock
) -> None:
    key, text = await make(store)
    ring = ring_of(store, clock)
    for wrong in (mint(key.key_id), mint(new_key_id()), text[:-1], text + "A", "fb_", ""):
        assert await ring.find(wrong) is None
    assert await ring.find(text)


async def test_after_a_rotation_both_are_good_until_the_overlap_ends(
    store: KeyStore, clock: Clock
) -> None:
    key, old = await make(store)
    ring = ring_of(store, clock)
    _, new = await store.rotate(key.key_id, overlap_s=60)
    assert await ring.find(old)
    assert await ring.find(new)
    clock.now += 61
    assert await ring.find(old) is None
    assert await ring.find(new)
    _, newest = await store.rotate(key.key_id, overlap_s=0)
    clock.now += 3
    assert [bool(await ring.find(one)) for one in (old, new, newest)] == [False, False, True]


async def test_of_two_rotations_at_once_the_second_changes_nothing(
    store: KeyStore, redis: Redis
) -> None:
    key, _ = await make(store)
    library = AccessLibrary(redis, "test")
    assert await library.key_rotate(key.key_id, key.mac, "first", 2e6, 1e6)
    assert await library.key_rotate(key.key_id, key.mac, "first", 2e6, 1e6), "sent again"
    assert not await library.key_rotate(key.key_id, key.mac, "second", 2e6, 1e6)
    assert (await store.get(key.key_id)).mac == "first"


async def test_a_revoked_key_is_refused_in_every_process_within_two_seconds(
    store: KeyStore, clock: Clock
) -> None:
    key, text = await make(store)
    here, there = ring_of(store, clock), ring_of(store, clock)
    assert await here.find(text)
    assert await there.find(text)
    await store.revoke(key.key_id)
    here.forget(key.key_id)
    assert await here.find(text) is None
    clock.now += 2.01
    assert await there.find(text) is None
    with pytest.raises(KeyNotFoundError):
        await store.rotate(key.key_id, 60)
    assert (await store.get(key.key_id)).revoked_s is not None


async def test_a_key_expires(store: KeyStore, clock: Clock) -> None:
    _, text = await make(store, lifetime_s=10)
    ring = ring_of(store, clock)
    assert await ring.find(text)
    clock.now += 10
    assert await ring.find(text) is None


async def test_the_ring_holds_no_more_than_it_may_and_asks_once_for_many(
    store: KeyStore, redis: Redis, clock: Clock
) -> None:
    texts = [(await make(store))[1] for _ in range(5)]
    ring = ring_of(store, clock, most=3)
    for text in texts:
        assert await ring.find(text)
    assert [ring.holds(text) for text in texts] == [False, False, True, True, True]
    before = (await redis.info("commandstats"))["cmdstat_hgetall"]["calls"]
    clock.now += 5
    await asyncio.gather(*(ring.find(texts[4]) for _ in range(50)))
    after = (await redis.info("commandstats"))["cmdstat_hgetall"]["calls"]
    assert after == before + 1


async def test_keys_that_ended_leave_the_server(store: KeyStore, redis: Redis) -> None:
    key, _ = await make(store, lifetime_s=10)
    lasting, _ = await make(store)
    await store.revoke(lasting.key_id)
    for one in (key, lasting):
        assert 0 < await redis.ttl(f"{{fb:test:access}}:api_key:{one.key_id}") <= 31 * 86_400


@pytest.mark.parametrize(
    ("label", "tenant"), [("x" * 101, "acme"), ("two\nlines", "acme"), ("x", "a b"), ("x", "")]
)
async def test_no_key_has_such_a_label_or_tenant(store: KeyStore, label: str, tenant: str) -> None:
    with pytest.raises(InvalidRequestError):
        await store.create(label, frozenset({Scope.INFER}), Tenant(tenant), Allowance())
    assert await store.list_keys() == []


async def test_another_pepper_is_refused_at_the_start(store: KeyStore, redis: Redis) -> None:
    other = KeyStore(redis, "test", bytes(32))
    await other.start()  # nothing hangs on the one before: there are no keys yet
    with pytest.raises(KeyNotFoundError):
        await other.get(KeyId("0" * 16))
    await make(other)
    with pytest.raises(AccessSetupError, match="key_pepper_file"):
        await store.start()
    assert await forget_keys(redis, "test") == 1
    await store.start()
    assert await store.list_keys() == []


def test_the_pepper_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "pepper"
    pepper = load_or_make_pepper(file)
    assert len(pepper) == 32
    assert load_or_make_pepper(file) == pepper
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [one.name for one in file.parent.iterdir()] == ["pepper"]


@pytest.mark.parametrize("text", ["", "00", "zz" * 32])
def test_a_damaged_pepper_is_not_replaced(tmp_path: Path, text: str) -> None:
    file = tmp_path / "pepper"
    file.write_text(text)
    file.chmod(0o600)
    with pytest.raises(AccessSetupError, match="Restore it"):
        load_or_make_pepper(file)
    assert file.read_text() == text


def test_a_pepper_that_others_can_read_is_refused_with_the_mend(tmp_path: Path) -> None:
    file = tmp_path / "pepper"
    load_or_make_pepper(file)
    file.chmod(0o644)
    with pytest.raises(AccessSetupError, match="chmod 600"):
        load_or_make_pepper(file)


def test_a_secret_file_is_read_without_its_line_end(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(" s3cret \r\n")
    assert read_secret_file(file) == " s3cret "
    file.write_text("\n")
    with pytest.raises(AccessSetupError, match="empty"):
        read_secret_file(file)


@pytest.mark.parametrize("fault", [RuntimeError("a bug"), asyncio.CancelledError()])
async def test_a_deed_that_breaks_off_is_recorded_too(redis: Redis, fault: BaseException) -> None:
    trail = AuditTrail(redis, "test")

    async def breaks_off() -> None:
        async with trail.recorded(Deed("key:a", "key.create", "label", "local", "done")) as deed:
            deed.target = "the-id"
            raise fault

    with pytest.raises(type(fault)):
        await breaks_off()
    [entry] = await trail.latest(10)
    assert (entry["target"], entry["outcome"]) == ("the-id", "unknown")
