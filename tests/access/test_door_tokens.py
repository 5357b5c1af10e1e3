"""Tokens at a real door, their keys fetched from a real issuer; and who may call from a browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from redis.asyncio import Redis

from forebay.access.rules import AccessRules
from forebay.access.setup import TokenSetup
from forebay.admission.pool import DecoderPool
from forebay.api.services import DoorSettings
from tests.access.doors import (
    EC_KEY,
    RSA_KEY,
    RULES,
    Issuer,
    bearer,
    guarded,
    hmac_signed,
    jwk,
    make_key,
    setup,
    token,
)
from tests.access.doors import claims as claims_of

MODELS = "/v1/models"


@pytest.mark.parametrize("takes_keys", [False, True])
async def test_a_token_of_the_issuer_comes_in_and_a_key_where_both_may(
    redis: Redis, tmp_path: Path, decoders: DecoderPool, takes_keys: bool
) -> None:
    issuer = Issuer()
    issuer.keys.append(jwk(EC_KEY.public_key(), "two"))
    async with issuer.listening() as url:
        how = setup(tmp_path, takes_keys=takes_keys, tokens=TokenSetup(RULES, jwks_url=url))
        async with guarded(redis, tmp_path, decoders, how) as (door, access):
            for good in (
                token(RSA_KEY, "RS256", {"kid": "one"}),
                token(EC_KEY, "ES256", {"kid": "two"}),
            ):
                assert (await door.http.get(MODELS, headers=bearer(good))).status_code == 200
            secret = str(issuer.keys[0]["n"]).encode()
            for bad in (
                token(EC_KEY, "ES256", {"kid": "one"}),
                token(RSA_KEY, "RS256", {"kid": "three"}),
                token(RSA_KEY, "RS256"),
                hmac_signed({"alg": "HS256", "kid": "one"}, claims_of(), secret),
            ):
                assert (await door.http.get(MODELS, headers=bearer(bad))).status_code == 401
            scoped = token(RSA_KEY, "RS256", {"kid": "one"}, scope="tasks")
            assert (await door.http.get(MODELS, headers=bearer(scoped))).status_code == 403
            admin = token(RSA_KEY, "RS256", {"kid": "one"}, scope="admin")
            assert (
                await door.http.get("/v1/admin/audit", headers=bearer(admin))
            ).status_code == 200
            key = bearer(await make_key(access))
            with_key = await door.http.get(MODELS, headers=key)
            assert with_key.status_code == (200 if takes_keys else 401)
            assert issuer.asked == 1


async def test_without_the_issuer_tokens_are_refused_for_now_and_not_for_good(
    redis: Redis, tmp_path: Path, decoders: DecoderPool
) -> None:
    tokens = TokenSetup(RULES, jwks_url="http://127.0.0.1:1/jwks")
    async with guarded(redis, tmp_path, decoders, setup(tmp_path, tokens=tokens)) as (door, _):
        reply = await door.http.get(MODELS, headers=bearer(token(RSA_KEY, "RS256")))
        assert reply.status_code == 503
        assert reply.json()["error"]["code"] == "keys_unavailable"
        assert int(reply.headers["Retry-After"]) >= 1
        assert "127.0.0.1:1" not in reply.text


@pytest.mark.parametrize("credentials", [False, True])
async def test_a_named_page_may_read_answers_and_refusals_and_no_other_page_may(
    redis: Redis, tmp_path: Path, decoders: DecoderPool, credentials: bool
) -> None:
    page = "https://app.test"
    settings = DoorSettings(cors_origins=(page,), cors_credentials=credentials)
    how = setup(tmp_path, AccessRules(anonymous=False, origins=frozenset({page})))
    async with guarded(redis, tmp_path, decoders, how, settings=settings) as (door, access):
        key = bearer(await make_key(access))
        for origin in (page, "https://evil.test", "https://app.test.evil.test", "null"):
            for headers, status in ((key, 200), ({}, 401)):
                reply = await door.http.get(MODELS, headers={**headers, "Origin": origin})
                assert reply.status_code == status
                allowed = reply.headers.get("Access-Control-Allow-Origin")
                assert allowed == (page if origin == page else None)
                assert "Origin" in reply.headers["Vary"]
        asked = {"Origin": page, "Access-Control-Request-Method": "POST"}
        asked["Access-Control-Request-Headers"] = "authorization, content-type, idempotency-key"
        preflight = await door.http.options("/v1/tasks", headers=asked)
        assert preflight.status_code == 200
        with_them = preflight.headers.get("Access-Control-Allow-Credentials")
        assert with_them == ("true" if credentials else None)
