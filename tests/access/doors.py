"""A real door with a real gate, on a real socket and a real Valkey; and tokens of every kind."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from fastapi import FastAPI
from redis.asyncio import Redis
from starlette.responses import Response

from forebay.access.caller import Allowance, Scope
from forebay.access.opening import Access, open_access
from forebay.access.rules import AccessRules
from forebay.access.setup import AccessSetup, TokenRules, TokenSetup
from forebay.admission.pool import DecoderPool
from forebay.core.request import DEFAULT_TENANT, Tenant
from tests.api.door import Door, listening, open_door

SECRET = "a-secret-that-is-long-enough-for-hs256!"
RULES = TokenRules("https://issuer.test", "forebay")
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
RSA_PEM = (
    RSA_KEY.public_key()
    .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    .decode()
)
EC_PEM = (
    EC_KEY.public_key()
    .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    .decode()
)

KEYS_ONLY = AccessRules(anonymous=False)


def setup(folder: Path, rules: AccessRules = KEYS_ONLY, **more: Any) -> AccessSetup:
    return AccessSetup(rules, folder / "pepper", **{"takes_keys": True, **more})


def hs256() -> TokenSetup:
    return TokenSetup(RULES, secret=SECRET)


@asynccontextmanager
async def guarded(
    redis: Redis, folder: Path, decoders: DecoderPool, how: AccessSetup | None = None, **more: Any
) -> AsyncIterator[tuple[Door, Access]]:
    async with (
        open_access(how or setup(folder), redis, "test") as access,
        open_door(redis, folder / "blobs", decoders, access=access, **more) as door,
    ):
        yield door, access


async def make_key(
    access: Access,
    *scopes: Scope,
    tenant: str = DEFAULT_TENANT,
    lifetime_s: float | None = None,
    **allowance: Any,
) -> str:
    wanted = frozenset(scopes or (Scope.INFER, Scope.TASKS))
    _, text = await access.keys.create(
        "test", wanted, Tenant(tenant), Allowance(**allowance), lifetime_s
    )
    return text


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    whole = {
        "iss": RULES.issuer,
        "aud": RULES.audience,
        "sub": "someone",
        "exp": now + 600,
        "scope": "infer tasks",
        **changes,
    }
    return {name: value for name, value in whole.items() if value is not None}


def token(key: Any = SECRET, algorithm: str = "HS256", header: Any = None, **changes: Any) -> str:
    return jwt.encode(claims(**changes), key, algorithm, headers=header)


def forged(header: dict[str, Any], payload: Any, signature: bytes = b"") -> str:
    """A token put together by hand, as no library would."""
    parts = [json.dumps(part).encode() for part in (header, payload)]
    return ".".join(base64.urlsafe_b64encode(p).rstrip(b"=").decode() for p in (*parts, signature))


def hmac_signed(header: dict[str, Any], payload: Any, key: bytes) -> str:
    body = forged(header, payload).rpartition(".")[0]
    mac = hmac.new(key, body.encode(), hashlib.sha256).digest()
    return body + "." + base64.urlsafe_b64encode(mac).rstrip(b"=").decode()


def jwk(key: Any, kid: str | None, **more: Any) -> dict[str, Any]:
    algorithm = "RS256" if isinstance(key, rsa.RSAPublicKey | rsa.RSAPrivateKey) else "ES256"
    made = jwt.get_algorithm_by_name(algorithm).to_jwk(key, as_dict=True)
    return {**made, "kid": kid, **more}


class Issuer:
    """A JWKS address that counts who asks."""

    def __init__(self) -> None:
        self.keys = [jwk(RSA_KEY.public_key(), "one")]
        self.asked = 0
        self.answer: Response | None = None

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        app = FastAPI()

        @app.get("/jwks")
        async def jwks() -> Response:
            self.asked += 1
            return self.answer or Response(json.dumps({"keys": self.keys}))

        async with listening(app) as url:
            yield f"{url}/jwks"
