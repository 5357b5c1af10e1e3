"""The settings of pictures by URL."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode

from forebay.outbound.allowed import check_ports, read_allowed


class FetchSettings(BaseSettings):
    """Whether pictures are fetched, from where, and what one may cost."""

    fetch_urls: bool = Field(
        False, description="Whether pictures are fetched from URLs that clients name."
    )
    fetch_only: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Hosts that pictures may come from, comma-separated; unset: any public one."
    )
    fetch_allow: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Hosts, addresses and networks (CIDR) inside that pictures may come from, "
        "comma-separated.",
    )
    fetch_ports: Annotated[tuple[int, ...], NoDecode] = Field(
        (80, 443), description="Ports that pictures may come from, comma-separated."
    )
    fetch_timeout_s: float = Field(
        10.0, gt=0, le=120, description="How long a picture's host has for all of it."
    )
    fetch_max_bytes: int = Field(10 * 2**20, ge=1024, description="Largest picture fetched.")
    fetch_concurrency: int = Field(
        32,
        ge=1,
        le=1024,
        description="Pictures that the API fetches at once, shared out among its processes.",
    )
    fetch_cache_bytes: int = Field(
        64 * 2**20,
        ge=0,
        description="Bytes of fetched pictures that the API keeps, shared "
        "out among its processes; 0: none.",
    )
    fetch_cache_s: float = Field(
        60.0, ge=0, le=3600, description="How long one is taken without asking whether it changed."
    )

    @field_validator("fetch_only", "fetch_allow", "fetch_ports", mode="before")
    @classmethod
    def _fetch_listed(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("fetch_allow")
    @classmethod
    def _fetch_allowed(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        read_allowed(value)
        return value

    @field_validator("fetch_only")
    @classmethod
    def _fetch_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        hosts, networks = read_allowed(value)
        if networks:
            raise ValueError("must be names of hosts; addresses inside go into fetch_allow")
        return tuple(sorted(hosts))

    @field_validator("fetch_ports")
    @classmethod
    def _fetch_numbers(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        check_ports(value)
        return value
