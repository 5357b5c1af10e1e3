"""What the doctor says of who could come in."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from forebay.access.caller import Allowance, Scope
from forebay.access.key_store import KeyStore
from forebay.access.opening import open_keys
from forebay.config import Settings
from forebay.core.request import DEFAULT_TENANT
from forebay.doctor_access import check_access
from forebay.findings import Finding, Verdict
from forebay.queue.embedded import EmbeddedValkey
from tests.access.doors import RSA_PEM, SECRET, Issuer

DAY_S = 86_400.0


async def examined(folder: Path, **more: Any) -> Finding:
    return await asyncio.to_thread(check_access, Settings(data_dir=folder, **more))


async def test_an_open_door_is_good_at_home_and_no_door_elsewhere(tmp_path) -> None:
    assert (await examined(tmp_path)).verdict is Verdict.GOOD
    public = await examined(tmp_path, host="0.0.0.0")
    assert public.verdict is Verdict.BAD
    assert "auth is none" in public.found
    forced = await examined(tmp_path, host="0.0.0.0", insecure_anyone_from_anywhere=True)
    assert forced.verdict is Verdict.WARN
    assert "auth=keys" in forced.mend
    at_home = await examined(tmp_path, insecure_anyone_from_anywhere=True)
    assert at_home.verdict is Verdict.GOOD


async def make(store: KeyStore, lifetime_s: float | None = None) -> str:
    key, _ = await store.create(
        f"till-{lifetime_s}", frozenset({Scope.INFER}), DEFAULT_TENANT, Allowance(), lifetime_s
    )
    return key.key_id


async def test_keys_are_counted_and_those_that_end_are_named(
    redis: Redis, valkey: EmbeddedValkey, tmp_path: Path
) -> None:
    terms: dict[str, Any] = {"auth": "keys", "queue_url": valkey.url, "queue_name": "test"}
    never = await examined(tmp_path, **terms)
    assert (never.verdict, "no key was ever made" in never.found) == (Verdict.WARN, True)
    assert "forebay keys create" in never.mend
    pepper = tmp_path / "access" / "key_pepper"
    assert not pepper.exists(), "a look changes nothing"
    store = await open_keys(pepper, redis, "test")
    assert (await examined(tmp_path, **terms)).verdict is Verdict.WARN
    await make(store)
    await make(store, 100 * DAY_S)
    good = await examined(tmp_path, **terms)
    assert (good.verdict, good.found) == (Verdict.GOOD, "2 good keys")
    soon = await make(store, 3 * DAY_S)
    ended = await make(store, 0.001)
    await asyncio.sleep(0.01)
    found = await examined(tmp_path, **terms)
    assert found.verdict is Verdict.WARN
    assert f"3 good keys, 1 that have ended; 1 end within 14 days: till-259200.0 ({soon})" in (
        found.found
    )
    assert ended not in found.found
    assert "rotate" in found.mend
    pepper.chmod(0o644)
    spoiled = await examined(tmp_path, **terms)
    assert spoiled.verdict is Verdict.BAD
    assert spoiled.mend


async def test_keys_of_a_queue_that_does_not_run_are_no_fault(tmp_path, redis) -> None:
    await open_keys(tmp_path / "access" / "key_pepper", redis, "test")
    assert (await examined(tmp_path, auth="keys")).verdict is Verdict.GOOD
    away = await examined(tmp_path, auth="keys", queue_url="redis://127.0.0.1:1/0")
    assert away.verdict is Verdict.WARN


NAMED: dict[str, Any] = {"jwt_issuer": "https://issuer.test", "jwt_audience": "forebay"}


@pytest.mark.parametrize(
    ("more", "verdict"),
    [
        ({"jwt_secret": SECRET, **NAMED}, Verdict.GOOD),
        ({"jwt_secret": SECRET}, Verdict.BAD),
        ({"jwt_secret": "short", **NAMED}, Verdict.BAD),
        ({"jwt_public_key_file": Path("nowhere.pem"), **NAMED}, Verdict.BAD),
        ({"jwt_jwks_url": "http://issuer.test/jwks", **NAMED}, Verdict.BAD),
        ({"jwt_jwks_url": "http://127.0.0.1:1/jwks", **NAMED}, Verdict.WARN),
    ],
)
async def test_what_tokens_are_verified_with_is_looked_at(tmp_path, more, verdict) -> None:
    found = await examined(tmp_path, auth="jwt", **more)
    assert found.verdict is verdict, found
    assert bool(found.mend) is (verdict is not Verdict.GOOD)
    assert SECRET not in found.found


async def test_a_pem_file_and_an_issuer_that_answers_are_good(tmp_path) -> None:
    pem = tmp_path / "key.pem"
    pem.write_text(RSA_PEM)
    pem.chmod(0o600)
    assert (await examined(tmp_path, auth="jwt", jwt_public_key_file=pem, **NAMED)).mend == ""
    async with Issuer().listening() as url:
        found = await examined(tmp_path, auth="both", jwt_jwks_url=url, **NAMED)
    assert found.found == "tokens of https://issuer.test; no key was ever made: nobody can come in"
    assert found.verdict is Verdict.WARN
