"""API keys: how they are made, read and kept.

A key is ``fb_``, its id, ``_`` and 256 random bits. The server keeps an HMAC-SHA-256 of it under a
pepper that the server's data does not hold: who reads the data can neither use nor guess a key.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, NewType

from forebay.access.caller import Allowance, Caller, Scope
from forebay.core.request import DEFAULT_TENANT, Priority, Tenant

KeyId = NewType("KeyId", str)

PREFIX: Final = "fb_"
LONGEST_LABEL: Final = 100
_SECRET_BYTES: Final = 32
_FORM: Final = re.compile(r"fb_([0-9a-f]{16})_[A-Za-z0-9_-]{43}")
_TENANT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is known of a key; ``mac`` and ``old_mac`` are hashes. Times: seconds since the epoch.

    After a rotation the key before it is good until ``old_until_s``.
    """

    key_id: KeyId
    mac: str = field(repr=False)
    label: str
    scopes: frozenset[Scope]
    created_s: float
    tenant: Tenant = DEFAULT_TENANT
    allowance: Allowance = field(default_factory=Allowance)
    expires_s: float | None = None
    rotated_s: float | None = None
    old_mac: str | None = field(default=None, repr=False)
    old_until_s: float = 0.0
    revoked_s: float | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for a label, tenant or set of scopes that no key may have."""
        if len(self.label) > LONGEST_LABEL or not self.label.isprintable():
            raise ValueError(f"label must be a line of at most {LONGEST_LABEL} characters")
        check_tenant(self.tenant)
        if not self.scopes:
            raise ValueError("scopes must name one of " + ", ".join(Scope))

    def accepts(self, mac: str, now_s: float) -> bool:
        """Whether the hash is this key's, or before its overlap ends its last one's.

        Both are always compared, and in constant time.
        """
        current = hmac.compare_digest(self.mac, mac)
        former = hmac.compare_digest(self.old_mac or self.mac, mac)
        return current or (former and self.old_mac is not None and now_s < self.old_until_s)

    def is_live(self, now_s: float) -> bool:
        """Whether it is neither revoked nor expired."""
        return self.revoked_s is None and (self.expires_s is None or now_s < self.expires_s)

    def caller(self, address: str) -> Caller:
        """Return who comes in with it."""
        name = f"key:{self.key_id}"
        return Caller(name, self.tenant, self.scopes, self.allowance, address)


def check_tenant(tenant: str) -> None:
    """Raise ValueError unless it can be a tenant's name."""
    if not _TENANT.fullmatch(tenant):
        raise ValueError("tenant must be 1 to 64 letters, digits or any of _ . @ -")


def new_key_id() -> KeyId:
    """Return an id that no other key has."""
    return KeyId(secrets.token_hex(8))


def mint(key_id: KeyId) -> str:
    """Return a new key of that id: the only time that it is seen whole."""
    return f"{PREFIX}{key_id}_{secrets.token_urlsafe(_SECRET_BYTES)}"


def key_id_of(text: str) -> KeyId | None:
    """Return the id within what looks like a key, None for anything else."""
    found = _FORM.fullmatch(text)
    return KeyId(found[1]) if found else None


def digest(pepper: bytes, key: str) -> str:
    """Return the hash that is kept of a key."""
    return hmac.new(pepper, key.encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()


def pepper_mark(pepper: bytes) -> str:
    """Return what tells peppers apart and gives none away."""
    return hmac.new(pepper, b"forebay pepper", hashlib.sha256).hexdigest()[:16]


def to_fields(key: ApiKey) -> dict[str, str]:
    """Return the hash's fields of a new key; what is None has none."""
    given: dict[str, Any] = {
        "mac": key.mac,
        "label": key.label,
        "scopes": " ".join(sorted(key.scopes)),
        "created": key.created_s,
        "tenant": key.tenant,
        "allowance": json.dumps({k: v for k, v in asdict(key.allowance).items() if v is not None}),
        "expires": key.expires_s,
    }
    return {name: str(value) for name, value in given.items() if value is not None}


def from_fields(key_id: KeyId, fields: Mapping[str, str]) -> ApiKey:
    """Return the key of a hash's fields. Raises ValueError or KeyError where they are not one's."""
    return ApiKey(
        key_id,
        fields["mac"],
        fields["label"],
        frozenset(Scope(one) for one in fields["scopes"].split()),
        float(fields["created"]),
        Tenant(fields["tenant"]),
        read_allowance(json.loads(fields["allowance"])),
        _time(fields, "expires"),
        _time(fields, "rotated"),
        fields.get("old_mac"),
        _time(fields, "old_until") or 0.0,
        _time(fields, "revoked"),
    )


def read_allowance(given: Mapping[str, Any]) -> Allowance:
    """Return an allowance from its fields by name. Raises ValueError."""
    fields = dict(given)
    if "top_priority" in fields:
        fields["top_priority"] = Priority(fields["top_priority"])
    return Allowance(**fields)


def _time(fields: Mapping[str, str], name: str) -> float | None:
    return float(fields[name]) if name in fields else None


def public_form(key: ApiKey) -> dict[str, Any]:
    """Return what may be shown of a key, to those who run the service."""
    return {
        "id": key.key_id,
        "label": key.label,
        "tenant": key.tenant,
        "scopes": sorted(key.scopes),
        "created_at": key.created_s,
        "expires_at": key.expires_s,
        "rotated_at": key.rotated_s,
        "old_key_until": key.old_until_s if key.old_mac else None,
        "revoked_at": key.revoked_s,
        "allowance": asdict(key.allowance),
    }
