"""How access is set up: what the settings say, in this package's own words."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from forebay.access.rules import AccessRules

SUBJECT: Final = "sub"
"""The claim that says whose token it is."""


@dataclass(frozen=True, slots=True)
class TokenRules:
    """What a token must say, and what its claims mean."""

    issuer: str
    audience: str
    leeway_s: float = 30.0
    tenant_claim: str = SUBJECT
    scope_claim: str = "scope"


@dataclass(frozen=True, slots=True)
class TokenSetup:
    """Which tokens are taken. One of ``secret``, ``public_pem`` and ``jwks_url`` is set."""

    rules: TokenRules
    secret: str | None = field(default=None, repr=False)
    public_pem: str | None = None
    jwks_url: str | None = None


@dataclass(frozen=True, slots=True)
class AccessSetup:
    """Who may come in. ``takes_keys``: API keys are taken; ``tokens``: None where none are.

    Where anyone may come in, keys are taken for administration alone.
    """

    rules: AccessRules
    pepper_file: Path
    takes_keys: bool = False
    tokens: TokenSetup | None = None
