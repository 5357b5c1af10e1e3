"""The settings of connections: how many, how slow, how long their headers."""

from __future__ import annotations

from pydantic import Field

from forebay.config.group import SettingsGroup


class ConnectionSettings(SettingsGroup):
    """What a client may take of the door before and after it has a request."""

    api_processes: int = Field(
        1,
        ge=1,
        le=16,
        description="API processes at one port. Bounds of the API hold for all of them together.",
    )
    max_connections: int = Field(
        8192,
        ge=1,
        description="Connections that the API holds open; more are refused.",
    )
    address_connections: int = Field(
        2048,
        ge=1,
        description="Of these, from one address (IPv6: one /64); `trusted_proxies` are not bound.",
    )
    keep_alive_s: int = Field(
        75,
        ge=1,
        le=3600,
        description="How long a connection waits for another request; longer than a proxy's own.",
    )
    header_timeout_s: float = Field(
        10.0, gt=0, le=600, description="How long a request's headers may take to come."
    )
    max_header_bytes: int = Field(
        65_536, ge=1024, le=2**20, description="Most bytes of a request's first line and headers."
    )
    send_timeout_s: float = Field(
        30.0, gt=0, le=600, description="How long a client may leave an answer or a stream unread."
    )
    workers_gone_s: float = Field(
        120.0,
        ge=0,
        description="How long no worker may give a sign of life before new requests are refused "
        "with 503; 0: they always wait.",
    )
