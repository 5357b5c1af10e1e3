"""Tokens, and what those try who have none."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import RedirectResponse, Response

from forebay.access.caller import Scope
from forebay.access.credentials import read_credentials
from forebay.access.errors import AccessSetupError
from forebay.access.jwks import MOST_BYTES, JwksKeys, check_jwks_url, read_jwks
from forebay.access.setup import TokenRules
from forebay.access.tokens import (
    LONGEST_TOKEN,
    TokenVerifier,
    public_key,
    secret_key,
)
from forebay.core.errors import KeysUnavailableError, NotAuthenticatedError
from tests.access.doors import (
    EC_KEY,
    EC_PEM,
    RSA_KEY,
    RSA_PEM,
    RULES,
    SECRET,
    Issuer,
    claims,
    forged,
    hmac_signed,
    jwk,
    token,
)

HS = TokenVerifier(secret_key(SECRET), RULES)
RS = TokenVerifier(public_key(RSA_PEM), RULES)
ES = TokenVerifier(public_key(EC_PEM), RULES)


async def refuses(verifier: TokenVerifier, text: str) -> None:
    with pytest.raises(NotAuthenticatedError) as caught:
        await verifier.verify(text, "::1")
    assert caught.value.given


@pytest.mark.parametrize(
    ("verifier", "text"),
    [(HS, token()), (RS, token(RSA_KEY, "RS256")), (ES, token(EC_KEY, "ES256"))],
    ids=["HS256", "RS256", "ES256"],
)
async def test_a_good_token_of_each_kind_names_its_caller(verifier, text) -> None:
    caller = await verifier.verify(text, "192.0.2.1")
    assert caller.scopes == {Scope.INFER, Scope.TASKS}
    assert (caller.tenant[:4], caller.address) == ("sub:", "192.0.2.1")
    assert "someone" not in repr(caller)


async def test_two_subjects_are_two_tenants_and_none_is_a_keys() -> None:
    tenants = {(await HS.verify(token(sub=s), "")).tenant for s in ("a", "b", "default", "sub:a")}
    assert len(tenants) == 4
    assert all(":" in one for one in tenants), "a key's tenant has no colon"


async def test_the_tenant_may_be_another_claim() -> None:
    verifier = TokenVerifier(secret_key(SECRET), TokenRules(RULES.issuer, RULES.audience, 0, "org"))
    assert (await verifier.verify(token(org="acme"), "")).tenant == "acme"
    for org in (None, "", 7, ["acme"], "a b", "x" * 65):
        await refuses(verifier, token(org=org))


@pytest.mark.parametrize(
    ("scope", "found"),
    [
        ("infer", {"infer"}),
        ("openid forebay:admin email", {"admin"}),
        (["tasks", 7, None], {"tasks"}),
        ("ADMIN superadmin administrator", set()),
        (None, set()),
        ({"admin": True}, set()),
        (True, set()),
    ],
)
async def test_scopes_are_those_that_are_named_exactly(scope, found) -> None:
    assert (await HS.verify(token(scope=scope), "")).scopes == found


NOW = int(time.time())


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": NOW - 31},
        {"exp": None},
        {"exp": "soon"},
        {"exp": 1e400},
        {"exp": float("nan")},
        {"exp": [NOW + 60]},
        {"nbf": NOW + 600},
        {"iat": NOW + 600},
        {"iss": "https://other.test"},
        {"iss": None},
        {"iss": [RULES.issuer]},
        {"aud": "other"},
        {"aud": None},
        {"aud": ["other", "another"]},
        {"sub": None},
        {"sub": 7},
        {"sub": ""},
    ],
    ids=str,
)
async def test_claims_that_must_be_there_and_right(changes) -> None:
    await refuses(HS, hmac_signed({"alg": "HS256"}, claims(**changes), SECRET.encode()))


async def test_clocks_may_differ_by_the_leeway() -> None:
    assert await HS.verify(token(exp=int(time.time()) - 20), "")
    assert await HS.verify(token(nbf=int(time.time()) + 20), "")


def none_attacks() -> list[str]:
    return [forged({"alg": alg, "typ": "JWT"}, claims(), b"x") for alg in ("none", "None", "NONE")]


@pytest.mark.parametrize("verifier", [HS, RS, ES], ids=["HS", "RS", "ES"])
@pytest.mark.parametrize(
    "text",
    [
        *none_attacks(),
        forged({"alg": "none"}, claims()),
        hmac_signed({"alg": "HS256"}, claims(), RSA_PEM.encode()),
        hmac_signed({"alg": "HS256"}, claims(), EC_PEM.encode()),
        hmac_signed({"alg": "HS256"}, claims(), b""),
        hmac_signed({"alg": "HS384"}, claims(), SECRET.encode()),
        hmac_signed({"alg": "RS256"}, claims(), RSA_PEM.encode()),
        hmac_signed({}, claims(), SECRET.encode()),
        hmac_signed({"alg": ["HS256"]}, claims(), SECRET.encode()),
        hmac_signed({"alg": "HS256", "crit": ["exp"]}, claims(), SECRET.encode()),
        hmac_signed({"alg": "HS256", "kid": 7}, claims(), SECRET.encode()),
        hmac_signed({"alg": "HS256", "kid": "x" * 201}, claims(), SECRET.encode()),
        hmac_signed({"alg": "HS256"}, [1, 2], SECRET.encode()),
        token(rsa.generate_private_key(public_exponent=65537, key_size=2048), "RS256"),
        token(ec.generate_private_key(ec.SECP256R1()), "ES256"),
        forged({"alg": "ES256"}, claims(), bytes(64)),
        forged({"alg": "RS256"}, claims(), bytes(256)),
        token("another-secret-that-is-long-enough!!!!!"),
        "a.b.c",
        "..",
        token() + ".more",
        token()[:-2],
        token() + "\n",
        "x" * (LONGEST_TOKEN + 1),
    ],
)
async def test_forgeries_are_refused_by_every_kind_of_key(verifier, text) -> None:
    await refuses(verifier, text)


async def test_a_key_that_the_token_brings_itself_is_not_used() -> None:
    own = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    header = {"jwk": jwk(own.public_key(), "x"), "jku": "http://127.0.0.1:1/", "x5u": "file:///"}
    await refuses(RS, token(own, "RS256", header))


async def test_deep_json_in_a_token_is_refused_and_nothing_worse() -> None:
    deep = json.loads("[" * 900 + "]" * 900)
    await refuses(HS, hmac_signed({"alg": "HS256", "x": deep}, claims(), b"x"))


@given(st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126), max_size=200))
def test_whatever_is_sent_as_a_token_is_refused_cleanly(text: str) -> None:
    with pytest.raises(NotAuthenticatedError):
        asyncio.run(HS.verify(text, ""))


@pytest.mark.parametrize("secret", ["short", RSA_PEM], ids=["short", "a public key"])
def test_a_secret_that_is_none_stops_the_start(secret: str) -> None:
    with pytest.raises(AccessSetupError, match="jwt_secret"):
        secret_key(secret)


def test_weak_and_foreign_public_keys_stop_the_start() -> None:
    for weak in (
        rsa.generate_private_key(public_exponent=65537, key_size=1024),
        ec.generate_private_key(ec.SECP384R1()),
    ):
        pem = weak.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        with pytest.raises(AccessSetupError, match="2048"):
            public_key(pem.decode())
    with pytest.raises(AccessSetupError, match="PEM"):
        public_key(SECRET)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def issuer() -> Issuer:
    return Issuer()


@asynccontextmanager
async def keys_of(issuer: Issuer, clock: Clock) -> AsyncIterator[JwksKeys]:
    async with issuer.listening() as url, httpx.AsyncClient(trust_env=False) as http:
        yield JwksKeys(url, http, clock=clock)


async def test_a_published_key_verifies_and_is_fetched_once(issuer: Issuer) -> None:
    async with keys_of(issuer, Clock()) as keys:
        verifier = TokenVerifier(keys, RULES)
        good = token(RSA_KEY, "RS256", {"kid": "one"})
        await asyncio.gather(*(verifier.verify(good, "") for _ in range(20)))
        assert issuer.asked == 1
        await refuses(verifier, token(EC_KEY, "ES256", {"kid": "one"}))


async def test_unknown_key_ids_ask_the_issuer_once_in_a_cooldown(issuer: Issuer) -> None:
    clock = Clock()
    async with keys_of(issuer, clock) as keys:
        verifier = TokenVerifier(keys, RULES)
        for number in range(50):
            await refuses(verifier, token(RSA_KEY, "RS256", {"kid": f"../../{number}"}))
        assert issuer.asked == 1
        issuer.keys.append(jwk(EC_KEY.public_key(), "two"))
        new = token(EC_KEY, "ES256", {"kid": "two"})
        await refuses(verifier, new)
        clock.now += 31
        assert await verifier.verify(new, "")
        assert issuer.asked == 2


async def test_keys_outlive_an_issuer_that_is_away_for_a_while(issuer: Issuer) -> None:
    clock = Clock()
    async with keys_of(issuer, clock) as keys:
        verifier = TokenVerifier(keys, RULES)
        good = token(RSA_KEY, "RS256", {"kid": "one"})
        assert await verifier.verify(good, "")
        issuer.answer = Response(status_code=500)
        clock.now += 3600
        assert await verifier.verify(good, "")
        clock.now += 24 * 3600
        with pytest.raises(KeysUnavailableError):
            await verifier.verify(good, "")
        issuer.answer = None
        clock.now += 31
        assert await verifier.verify(good, "")


@pytest.mark.parametrize(
    "answer",
    [
        Response("x" * (MOST_BYTES + 1)),
        RedirectResponse("/jwks?other"),
        Response("[]"),
        Response('{"keys": 7}'),
        Response('{"keys": []}'),
        Response("[" * 100_000),
        Response(b"\xff\xfe"),
    ],
    ids=["huge", "redirect", "list", "number", "empty", "deep", "binary"],
)
async def test_what_is_no_key_set_gives_no_keys(issuer: Issuer, answer: Response) -> None:
    issuer.answer = answer
    async with keys_of(issuer, Clock()) as keys:
        with pytest.raises(KeysUnavailableError):
            await keys.find("one")


def test_keys_that_are_not_for_this_are_left_out() -> None:
    secret = {"kty": "oct", "k": "c2VjcmV0", "alg": "HS256", "kid": "secret"}
    good = jwk(RSA_KEY.public_key(), "good")
    bad = [
        secret,
        jwk(RSA_KEY.public_key(), "enc", use="enc"),
        jwk(RSA_KEY.public_key(), "alg", alg="HS256"),
        jwk(RSA_KEY, "private"),
        {"kty": ["RSA"], "kid": "list"},
        {"kty": "RSA", "kid": "empty"},
        {"kty": "EC", "crv": "P-521", "kid": "curve"},
        7,
    ]
    assert set(read_jwks({"keys": [*bad, good]})) == {"good"}
    many = [jwk(EC_KEY.public_key(), str(n)) for n in range(100)]
    assert len(read_jwks({"keys": many})) == 64


@pytest.mark.parametrize(
    "url", ["http://issuer.test/jwks", "file:///etc/passwd", "https://u:p@issuer.test/", "https://"]
)
def test_such_an_address_of_keys_stops_the_start(url: str) -> None:
    with pytest.raises(AccessSetupError, match="jwt_jwks_url"):
        check_jwks_url(url)


@pytest.mark.parametrize(
    "headers",
    [
        [(b"authorization", b"Bearer a"), (b"authorization", b"Bearer a")],
        [(b"x-api-key", b"a"), (b"x-api-key", b"b")],
        [(b"authorization", b"Bearer a"), (b"x-api-key", b"b")],
        [(b"authorization", b"Basic YTpi")],
        [(b"authorization", b"Bearer")],
        [(b"authorization", b"Bearer a b")],
        [(b"authorization", b"Bearer a,Bearer b")],
        [(b"authorization", b"Bearer \xff")],
        [(b"authorization", b"Bearer " + b"a" * 100_000)],
        [(b"x-api-key", b"")],
    ],
)
def test_credentials_in_two_voices_or_none_that_can_be_read_are_refused(headers) -> None:
    with pytest.raises(NotAuthenticatedError):
        read_credentials(headers)


def test_both_headers_may_say_the_same() -> None:
    both = read_credentials([(b"authorization", b"bearer abc"), (b"x-api-key", b"abc")])
    assert both is not None
    assert both.text == "abc"
    assert "abc" not in repr(both)
