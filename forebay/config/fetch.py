"""The settings of pictures by URL."""

from __future__ import annotations

from pydantic import Field, field_validator

from forebay.config.group import SettingsGroup
from forebay.config.values import InsidePlaces, Ports, Texts
from forebay.outbound.allowed import read_allowed


class FetchSettings(SettingsGroup):
    """Whether pictures are fetched, from where, and what one may cost."""

    fetch_urls: bool = Field(
        False, description="Whether pictures are fetched from URLs that clients name."
    )
    fetch_only: Texts = Field(
        (), description="Hosts that pictures may come from, comma-separated; unset: any public one."
    )
    fetch_allow: InsidePlaces = Field(
        (),
        description="Hosts, addresses and networks (CIDR) inside that pictures may come from, "
        "comma-separated.",
    )
    fetch_ports: Ports = Field(
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

    @field_validator("fetch_only")
    @classmethod
    def _fetch_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        hosts, networks = read_allowed(value)
        if networks:
            raise ValueError("must be names of hosts; addresses inside go into fetch_allow")
        return tuple(sorted(hosts))
