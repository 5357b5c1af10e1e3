"""Kinds of values that several groups of settings have."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, SecretStr
from pydantic_settings import NoDecode

from forebay.outbound.allowed import check_ports, read_allowed
from forebay.outbound.signing import read_secrets


def _listed(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _inside(value: tuple[str, ...]) -> tuple[str, ...]:
    read_allowed(value)
    return value


def _ports(value: tuple[int, ...]) -> tuple[int, ...]:
    check_ports(value)
    return value


def _secrets(value: SecretStr | None) -> SecretStr | None:
    if value is not None:
        read_secrets(value.get_secret_value())
    return value


Texts = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed)]
"""Texts, separated by commas where they come from a flag or the environment."""

InsidePlaces = Annotated[
    tuple[str, ...], NoDecode, BeforeValidator(_listed), AfterValidator(_inside)
]
"""Hosts, addresses and networks that may be reached though they are none of the public internet."""

Ports = Annotated[tuple[int, ...], NoDecode, BeforeValidator(_listed), AfterValidator(_ports)]
"""Ports that may be reached."""

SigningSecrets = Annotated[SecretStr | None, AfterValidator(_secrets)]
"""Secrets that sign webhooks, separated by commas."""
