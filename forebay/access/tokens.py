"""JSON Web Tokens: verified with one kind of key, by one algorithm, for one audience.

The algorithm follows from the key, never from the token: a public key is never taken for a
secret, and ``none`` is no algorithm. ``jku``, ``jwk`` and ``x5u`` of a token are not looked at.
Source: RFC 8725, JSON Web Token Best Current Practices.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any, Final, Protocol

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from forebay.access.caller import Allowance, Caller, Scope
from forebay.access.errors import AccessSetupError
from forebay.access.keys import check_tenant
from forebay.access.setup import SUBJECT, TokenRules
from forebay.core.errors import NotAuthenticatedError
from forebay.core.request import Tenant

LONGEST_TOKEN: Final = 8192
LONGEST_KID: Final = 200
LEAST_SECRET: Final = 32
LEAST_RSA_BITS: Final = 2048
_FORM: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_READ_ERRORS: Final = (
    jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError, AttributeError
)  # fmt: skip
"""What a library may raise for what a stranger wrote: all of it means the same."""


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """A key, and the one algorithm that it is for."""

    algorithm: str
    key: Any

    def __repr__(self) -> str:
        return f"VerifyingKey({self.algorithm})"


class KeySource(Protocol):
    """Where the key of a token is found."""

    async def find(self, kid: str | None) -> VerifyingKey | None:
        """Return the key of that id, None where there is none."""
        ...


@dataclass(frozen=True, slots=True)
class OneKey:
    """A single key, for tokens with whatever id."""

    key: VerifyingKey

    async def find(self, kid: str | None) -> VerifyingKey | None:
        """Return it."""
        del kid
        return self.key


def secret_key(secret: str) -> OneKey:
    """Return HS256 with a shared secret. Raises AccessSetupError for a short one, or a PEM."""
    if len(secret.encode()) < LEAST_SECRET:
        raise AccessSetupError(f"jwt_secret must be {LEAST_SECRET} bytes or longer, and random")
    if "-----BEGIN" in secret:
        raise AccessSetupError("jwt_secret is a PEM key: set jwt_public_key_file to its file")
    return OneKey(VerifyingKey("HS256", secret.encode()))


def public_key(pem: str) -> OneKey:
    """Return RS256 or ES256, as the key is. Raises AccessSetupError for another or a weak one."""
    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, TypeError) as error:
        raise AccessSetupError(f"jwt_public_key_file holds no PEM public key: {error}") from error
    if isinstance(key, RSAPublicKey) and key.key_size >= LEAST_RSA_BITS:
        return OneKey(VerifyingKey("RS256", key))
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        return OneKey(VerifyingKey("ES256", key))
    raise AccessSetupError(
        f"jwt_public_key_file must hold an RSA key of {LEAST_RSA_BITS} bits or more, or one on the "
        "curve P-256"
    )


class TokenVerifier:
    """Tells who comes in with a token."""

    def __init__(self, source: KeySource, rules: TokenRules) -> None:
        self._source = source
        self._rules = rules

    async def verify(self, token: str, address: str) -> Caller:
        """Return the caller that the token names.

        Raises:
            NotAuthenticatedError: the token is not good; what is wrong with its signature and its
                key is told apart for nobody.
            KeysUnavailableError: its key cannot be fetched for the moment.
        """
        if len(token) > LONGEST_TOKEN or not _FORM.fullmatch(token):
            raise refused()
        key = await self._source.find(_kid(token))
        if key is None:
            raise refused()
        try:
            claims = jwt.decode(
                token,
                key.key,
                algorithms=[key.algorithm],
                issuer=self._rules.issuer,
                audience=self._rules.audience,
                leeway=self._rules.leeway_s,
                options={"require": ["exp", "iss", "aud"]},
            )
            return self._caller(claims, address)
        except jwt.ExpiredSignatureError as error:
            raise refused("the token has expired") from error
        except _READ_ERRORS as error:
            raise refused() from error

    def _caller(self, claims: dict[str, Any], address: str) -> Caller:
        """Return who the claims name. Raises ValueError where they name nobody."""
        rules = self._rules
        tenant = claims.get(rules.tenant_claim)
        if not isinstance(tenant, str) or not tenant:
            raise ValueError("no tenant")
        subject = claims.get(SUBJECT)
        who = subject if isinstance(subject, str) else tenant
        name = f"jwt:{_short(rules.issuer + chr(0) + who)}"
        return Caller(
            name,
            # subjects are often chosen by users: none may choose the name of a key's tenant
            _subject_tenant(tenant) if rules.tenant_claim == SUBJECT else _named_tenant(tenant),
            _scopes(claims.get(rules.scope_claim)),
            Allowance(),
            address,
        )


def refused(why: str = "the credentials are not good here") -> NotAuthenticatedError:
    """Return the refusal of credentials that were given."""
    return NotAuthenticatedError(why, given=True)


def _kid(token: str) -> str | None:
    """Return the id of the token's key, after a look at its header."""
    try:
        header = jwt.get_unverified_header(token)
    except _READ_ERRORS as error:
        raise refused() from error
    kid = header.get("kid")
    if "crit" in header or not (kid is None or isinstance(kid, str)):
        raise refused()
    if kid is not None and len(kid) > LONGEST_KID:
        raise refused()
    return kid


def _scopes(given: object) -> frozenset[Scope]:
    """Return the scopes that are ours, of a list or a text of words, ``forebay:`` left out."""
    words = given.split() if isinstance(given, str) else given
    if not isinstance(words, list):
        return frozenset()
    names = {word.removeprefix("forebay:") for word in words if isinstance(word, str)}
    return frozenset(scope for scope in Scope if scope.value in names)


def _named_tenant(name: str) -> Tenant:
    check_tenant(name)
    return Tenant(name)


def _subject_tenant(subject: str) -> Tenant:
    return Tenant(f"sub:{_short(subject)}")


def _short(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:24]
