"""The settings of the queue: where it is, who we are there, and what it holds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator

from forebay.config.group import SettingsError, SettingsGroup, plain
from forebay.queue.address import Login, ServerAddress, Tls, parse_address


class QueueSettings(SettingsGroup):
    """The queue and its limits; every process of a queue must have the same ones."""

    queue_url: str | None = Field(
        None,
        description="Valkey or Redis (redis://, rediss://, unix://, redis+sentinel://, "
        "redis+cluster://); unset: a private one.",
    )
    queue_username: str = Field("", description="ACL user of that server; empty: its default one.")
    queue_password: SecretStr | None = Field(None, description="Password that it wants.")
    queue_password_file: Path | None = Field(
        None, description="File that holds the password; read at every connection."
    )
    queue_sentinel_password: SecretStr | None = Field(
        None, description="Password that the Sentinels themselves want."
    )
    queue_sentinel_password_file: Path | None = Field(None, description="File that holds it.")
    queue_tls_ca: Path | None = Field(
        None, description="Authority (PEM) to trust for rediss://; unset: the system's."
    )
    queue_tls_cert: Path | None = Field(None, description="Client certificate (PEM) for rediss://.")
    queue_tls_key: Path | None = Field(None, description="Its private key (PEM).")
    queue_tls_verify: bool = Field(
        True, description="Whether the server's certificate is verified; off is unsafe."
    )
    queue_partitions: int = Field(
        1,
        ge=1,
        le=64,
        description="Partitions of the queue; a cluster spreads them over its nodes.",
    )
    queue_name: str = Field(
        "main", pattern=r"^[A-Za-z0-9_.-]{1,64}$", description="Name of the queue in the server."
    )
    queue_fsync: Literal["everysec", "always"] = Field(
        "everysec",
        description="When the private server brings tasks to the disk: `everysec` or, safe from "
        "power loss and slower, `always`.",
    )
    max_waiting: int = Field(10_000, ge=1, description="Tasks that may wait; more are refused.")
    max_waiting_tokens: int = Field(
        50_000_000, ge=1, description="Tokens of cost that may wait; more are refused."
    )
    tenant_max_waiting: int | None = Field(
        None, ge=1, description="Tasks of one tenant that may wait; unset: no bound of its own."
    )
    tenant_max_waiting_tokens: int | None = Field(
        None, ge=1, description="Tokens of cost of one tenant that may wait; unset: no bound."
    )
    tenant_rate_per_s: float | None = Field(
        None, gt=0, description="Tasks a second that one tenant may send; unset: no bound."
    )
    tenant_burst: int = Field(
        10, ge=1, description="Tasks that one tenant may send at once before that rate counts."
    )
    starvation_share: float = Field(
        0.1, ge=0, le=1, description="Share of the tokens that less urgent tasks get in any case."
    )
    lease_s: float = Field(15.0, ge=1, le=600, description="A task's lease between heartbeats.")
    max_deliveries: int = Field(3, ge=1, le=100, description="Deliveries before the dead letter.")
    result_ttl_s: int = Field(3600, ge=1, description="How long a result is kept.")
    answer_cache_s: float = Field(
        300.0,
        ge=0,
        description="How long an answer at temperature 0 serves equal requests; 0: no request "
        "gets another one's answer.",
    )
    answer_cache_shared: bool = Field(
        False, description="Whether tenants may get each other's answers to equal requests."
    )
    max_answer_bytes: int = Field(
        2**20, ge=1024, description="Most text that a task's answers may have together."
    )

    @field_validator("queue_url")
    @classmethod
    def _queue_address(cls, value: str | None) -> str | None:
        if value is not None:
            parse_address(value)
        return value

    @field_validator("queue_password_file", "queue_tls_ca", "queue_tls_cert", "queue_tls_key")
    @classmethod
    def _readable(cls, value: Path | None) -> Path | None:
        if value is None:
            return None
        file = value.expanduser().absolute()
        if not os.access(file, os.R_OK) or not file.is_file():
            raise ValueError("is not a file that can be read")
        return file

    def queue_address(self) -> ServerAddress:
        """Return where the queue is, and who we are there. Raises SettingsError without a URL."""
        if self.queue_url is None:
            raise SettingsError("queue_url is not set: where is the queue?")
        login = Login(
            self.queue_username or None,
            plain(self.queue_password),
            self.queue_password_file,
            self.secret_of("queue_sentinel_password"),
        )
        tls = Tls(self.queue_tls_ca, self.queue_tls_cert, self.queue_tls_key, self.queue_tls_verify)
        return parse_address(self.queue_url, login, tls)
