"""Tokens that must let nobody in: forged, confused, outdated, oversized, or in no known form.

The good ones are signed with keys of an issuer of our own, so that each trick differs from a token
that is taken in nothing but the trick.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from tests.access.doors import jwk
from tests.hostile.attack import SECRET, Attack
from tests.outbound.raw_server import RawServer, ok

ISSUER, AUDIENCE = "https://issuer.test", "forebay"
RSA_KID, EC_KID = "rsa-1", "ec-1"
LATER, BEFORE = 4_102_444_800, 946_684_800
"""The years 2100 and 2000: the attacks of a seed are the same at any time."""

PATHS = ("/v1/models", "/v1/tasks", "/v1/admin/keys", "/v1/admin/audit")


def letters(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def compact(header: Any, payload: Any) -> str:
    """Return what is signed. A text is taken as it is: JSON that no library writes."""
    parts = [part if isinstance(part, str) else json.dumps(part) for part in (header, payload)]
    return ".".join(letters(part.encode()) for part in parts)


def claims(**changes: Any) -> dict[str, Any]:
    whole = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": SECRET,
        "exp": LATER,
        "scope": "infer tasks admin",
        **changes,
    }
    return {name: value for name, value in whole.items() if value is not None}


@dataclass(frozen=True)
class Issuer:
    """Who signs the good tokens. ``server`` publishes its keys; ``trap``: a port inside."""

    server: RawServer
    trap: int = 1
    rsa: rsa.RSAPrivateKey = field(
        default_factory=lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048)
    )
    other: rsa.RSAPrivateKey = field(
        default_factory=lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048)
    )
    ec: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )

    @property
    def settings(self) -> dict[str, str]:
        """Return the variables of a stack that believes it."""
        return {
            "FOREBAY_AUTH": "both",
            "FOREBAY_JWT_JWKS_URL": f"http://127.0.0.1:{self.server.port}/jwks",
            "FOREBAY_JWT_ISSUER": ISSUER,
            "FOREBAY_JWT_AUDIENCE": AUDIENCE,
            "FOREBAY_TRUSTED_PROXIES": "127.0.0.1",  # each guess comes from elsewhere
        }

    @property
    def key_set(self) -> bytes:
        public = (self.rsa.public_key(), RSA_KID), (self.ec.public_key(), EC_KID)
        return json.dumps({"keys": [jwk(key, kid) for key, kid in public]}).encode()

    @property
    def good(self) -> str:
        """Return a token that lets its bearer in."""
        return self.signed(claims(scope="infer tasks"))

    def signed(self, payload: Any, header: Any = None) -> str:
        """Sign as its own, by RS256."""
        body = compact(header or {"alg": "RS256", "kid": RSA_KID}, payload)
        return f"{body}.{letters(self.rsa_signature(body))}"

    def rsa_signature(self, body: str, key: rsa.RSAPrivateKey | None = None) -> bytes:
        return (key or self.rsa).sign(body.encode(), padding.PKCS1v15(), hashes.SHA256())

    def ec_signature(self, body: str) -> bytes:
        """Return a signature as ASN.1; the same for the same text."""
        how = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
        return self.ec.sign(body.encode(), how)

    def public_forms(self) -> list[bytes]:
        """Return its public keys in every form in which they may be taken for a secret."""
        found = []
        for key in (self.rsa.public_key(), self.ec.public_key()):
            for encoding in (serialization.Encoding.PEM, serialization.Encoding.DER):
                form = serialization.PublicFormat.SubjectPublicKeyInfo
                raw = key.public_bytes(encoding, form)
                found += [raw, raw.strip(), raw + b"\n"]
            found.append(json.dumps(jwk(key, RSA_KID)).encode())
        return [*found, self.key_set, letters(b"\x00").encode()]


def hmac_token(header: Any, key: bytes, payload: Any = None) -> str:
    body = compact(header, claims() if payload is None else payload)
    return f"{body}.{letters(hmac.new(key, body.encode(), hashlib.sha256).digest())}"


def _none(issuer: Issuer, rng: Random) -> str:
    alg = rng.choice(("none", "None", "NONE", "nOnE", "none ", "", None, [], {}, 0, True))
    signature = rng.choice(("", letters(rng.randbytes(32)), "AA"))
    return f"{compact({'alg': alg, 'kid': RSA_KID}, claims())}.{signature}"


def _confused(issuer: Issuer, rng: Random) -> str:
    kid = rng.choice((RSA_KID, EC_KID, None))
    alg = rng.choice(("HS256", "HS384", "RS256", "ES256", "hs256"))
    return hmac_token({"alg": alg, "kid": kid}, rng.choice(issuer.public_forms()))


def _other_algorithm(issuer: Issuer, rng: Random) -> str:
    body = compact({"alg": "PS256", "kid": RSA_KID}, claims())
    probabilistic = padding.PSS(padding.MGF1(hashes.SHA256()), 0)
    mine = compact({"alg": "ES256", "kid": RSA_KID}, claims())
    return rng.choice(
        (
            f"{body}.{letters(issuer.rsa.sign(body.encode(), probabilistic, hashes.SHA256()))}",
            f"{mine}.{letters(issuer.rsa_signature(mine))}",
            issuer.signed(claims(), {"alg": "RS512", "kid": RSA_KID}),
            issuer.signed(claims(), {"alg": "RS256", "kid": EC_KID}),
            issuer.signed(claims(), {"kid": RSA_KID}),
            issuer.signed(claims(), {"alg": ["RS256"], "kid": RSA_KID}),
            issuer.signed(claims(), '{"alg": "none", "alg": "RS512", "kid": "rsa-1"}'),
        )
    )


def _kid(issuer: Issuer, rng: Random) -> str:
    kid, key = rng.choice(
        (
            ("../../../../../../dev/null", b""),
            ("/proc/sys/kernel/randomize_va_space", b"2\n"),
            ("file:///dev/null", b""),
            (f"http://127.0.0.1:{issuer.trap}/jwks", b"x"),
            (f"http://169.254.169.254/latest?{SECRET}", b"x"),
            ("' UNION SELECT 'a", b"a"),
            ("x' OR '1'='1' -- ", b"a"),
            ("| curl http://127.0.0.1 #", b"a"),
            ("x\r\nFLUSHALL\r\n", b"a"),
            ("{{7*7}}${7*7}", b"49"),
            ("\x00", b"\x00"),
            ("密钥", "密钥".encode()),
            ("k" * 5000, b"k"),
            (SECRET, SECRET.encode()),
            (["rsa-1"], b"a"),
            ({"a": 1}, b"a"),
            (7, b"7"),
            ("__proto__", b"[object Object]"),
        )
    )
    return hmac_token({"alg": "HS256", "kid": kid}, key)


def _brought(issuer: Issuer, rng: Random) -> str:
    """Brings its own key, or says where it lies."""
    place = f"http://127.0.0.1:{issuer.trap}/jwks?{SECRET}"
    own = jwk(issuer.other.public_key(), rng.choice((RSA_KID, "mine")))
    header = rng.choice(
        (
            {"jwk": own},
            {"jku": place},
            {"x5u": place},
            {"x5c": [base64.b64encode(b"0\x82" + rng.randbytes(200)).decode()]},
            {"jku": place, "jwk": own, "x5u": place, "kid": own["kid"]},
        )
    )
    body = compact({"alg": "RS256", "kid": RSA_KID, **header}, claims())
    return f"{body}.{letters(issuer.rsa_signature(body, issuer.other))}"


def _claims(issuer: Issuer, rng: Random) -> str:
    """Signed as it should be, and says what it must not."""
    payload = rng.choice(
        (
            claims(exp=BEFORE),
            claims(exp=None),
            claims(exp="later"),
            claims(exp=[LATER]),
            claims(exp=-1),
            claims(exp=float("nan")),
            claims(exp=float("inf")),
            claims(nbf=LATER - 1),
            claims(nbf="soon"),
            claims(iat=LATER - 1),
            claims(iss="https://evil.test"),
            claims(iss=None),
            claims(iss=[ISSUER]),
            claims(iss=ISSUER + "/"),
            claims(aud="another"),
            claims(aud=None),
            claims(aud=[]),
            claims(aud=["another", 7]),
            claims(aud={"forebay": 1}),
            claims(sub=None),
            claims(sub=["a"]),
            claims(sub=""),
            f'{{"exp": {LATER}, "iss": "{ISSUER}", "aud": "forebay", "sub": "a", "exp": {BEFORE}}}',
            f'{{"exp": {LATER}, "iss": "{ISSUER}", "aud": "forebay", "sub": "a", "aud": "x"}}',
            "[]",
            "null",
            '"text"',
            "{",
            "",
            "[" * 2500 + "]" * 2500,
        )
    )
    return issuer.signed(payload)


def _critical(issuer: Issuer, rng: Random) -> str:
    crit = rng.choice((["exp"], ["b64"], [], ["x" * 100], "exp", None, 7, ["alg"]))
    header = {"alg": "RS256", "kid": RSA_KID, "crit": crit, "b64": False}
    return issuer.signed(claims(), header)


def _signature(issuer: Issuer, rng: Random) -> str:
    body, _, signature = issuer.good.rpartition(".")
    raised = compact({"alg": "RS256", "kid": RSA_KID}, claims())
    mine = compact({"alg": "ES256", "kid": EC_KID}, claims())
    der = issuer.ec_signature(mine)
    r, s = decode_dss_signature(der)
    return rng.choice(
        (
            f"{raised}.{signature}",
            f"{body}.",
            body,
            f"{body}.{signature[:-4]}",
            f"{body}.{signature}AAAA",
            f"{body}.{letters(bytes(256))}",
            f"{mine}.{letters(bytes(64))}",
            f"{mine}.{letters(der)}",
            f"{mine}.{letters(s.to_bytes(32, 'big') + r.to_bytes(32, 'big'))}",
            f"{mine}.{letters(rng.randbytes(64))}",
        )
    )


def _nested(issuer: Issuer, rng: Random) -> str:
    inner, header = issuer.good, {"alg": "RS256", "kid": RSA_KID, "cty": "JWT"}
    parts = inner.split(".")
    whole = {"payload": parts[1], "protected": parts[0], "signature": parts[2]}
    return rng.choice(
        (
            issuer.signed(json.dumps(inner), header),
            issuer.signed({"jwt": inner}, header),
            f"{inner}.{inner}",
            f"{parts[0]}..{parts[2]}",
            ".".join([*parts, "AA", "AA"]),
            json.dumps(whole).replace(" ", ""),
            letters(json.dumps(whole).encode()),
            f"{letters(inner.encode())}.{parts[1]}.{parts[2]}",
        )
    )


def _huge(issuer: Issuer, rng: Random) -> str:
    size = rng.choice((7_000, 12_000, 40_000, 200_000))
    return rng.choice(
        (
            issuer.signed(claims(more="x" * size)),
            "a" * size + ".b.c",
            "." * size,
            f"{letters(b'{' + b' ' * size)}.e30.AA",
        )
    )


TRICKS = {
    "none": _none,
    "confused": _confused,
    "another algorithm": _other_algorithm,
    "kid": _kid,
    "brings its key": _brought,
    "claims": _claims,
    "crit": _critical,
    "signature": _signature,
    "nested": _nested,
    "huge": _huge,
}


def _header(issuer: Issuer, rng: Random) -> bytes:
    """Return lines that do not bring the good token as it must be brought."""
    good = issuer.good.encode()
    return rng.choice(
        (
            b"Authorization: Bearer " + good + b"\r\nAuthorization: Bearer " + good,
            b"Authorization: Bearer " + good + b"\r\nX-API-Key: fb_another",
            b"Authorization: Basic " + base64.b64encode(b"a:" + good),
            b"Authorization: " + good,
            b"Authorization: Bearer",
            b"Authorization: Bearer " + good + b" " + good,
            b"Authorization: Bearer\t" + good,
            b"Authorization: Bearer " + good + b"=",
            b"Authorization: Bearer " + good + b"\xff",
            b"Authorization: Bearer " + good.replace(b".", b"\xe3\x80\x82"),
            b"Authorization: Bearer " + good.replace(b".", b"%2e"),
            b"Authorization: Bearer " + good[:40] + b"\x00" + good[40:],
            b"Authorization: Bearer \xc2\xa0" + good,
            b'Authorization: Bearer "' + good + b'"',
            b"Cookie: Authorization=Bearer " + good,
            b"X-Authorization: Bearer " + good,
            b"X-API-Key: fb_" + good,
            b"",
        )
    )


def token_trick(issuer: Issuer, rng: Random) -> Attack:
    """Return a request that would be answered if its token were taken."""
    about = rng.choice((*sorted(TRICKS), "header", "scope"))
    if about == "header":
        line, path = _header(issuer, rng), rng.choice(PATHS)
    elif about == "scope":
        scope = rng.choice(("infer", "ADMIN", "admin:", "superadmin", ["x"], {"admin": True}, 7))
        line = b"Authorization: Bearer " + issuer.signed(claims(scope=scope)).encode()
        path = "/v1/admin/keys"
    else:
        line = b"Authorization: Bearer " + TRICKS[about](issuer, rng).encode()
        path = rng.choice(PATHS)
    if about == "header" and rng.random() < 0.2:  # nor does its address let anybody in
        path += f"?access_token={issuer.good}&key={SECRET}"
    lines = (
        b"GET " + path.encode() + b" HTTP/1.1",
        b"Host: 127.0.0.1",
        # one address may guess ten times: then nobody would look at the others
        f"X-Forwarded-For: 203.0.113.{rng.randrange(256)}".encode(),
        f"Cookie: session={SECRET}".encode(),
        b"Connection: close",
    )
    head = b"\r\n".join([*lines, *([line] if line else [])])
    return Attack("token", head + b"\r\n\r\n", about=about)


@asynccontextmanager
async def issuing(trap: int) -> AsyncIterator[Issuer]:
    """Publish an issuer's keys."""
    server = RawServer()
    async with server.listening():
        issuer = Issuer(server, trap)
        server.answers["/jwks"] = ok(issuer.key_set)
        yield issuer
