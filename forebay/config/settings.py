"""All settings in one, and the sources that they are read from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

from pydantic import SecretStr, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from forebay.config.access import AccessSettings
from forebay.config.alerts import AlertSettings
from forebay.config.api import ApiSettings
from forebay.config.blobs import BlobSettings
from forebay.config.canary import CanarySettings
from forebay.config.care import CareSettings
from forebay.config.connections import ConnectionSettings
from forebay.config.fetch import FetchSettings
from forebay.config.folders import FolderSettings
from forebay.config.group import SettingsError
from forebay.config.logs import LogSettings
from forebay.config.model import ModelSettings
from forebay.config.pages import PageSettings
from forebay.config.queue import QueueSettings
from forebay.config.telemetry import TelemetrySettings
from forebay.config.webhooks import WebhookSettings
from forebay.config.workers import WorkerSettings
from forebay.queue.limits import QueueLimits

ENV_PREFIX: Final = "FOREBAY_"
CONFIG_VARIABLE: Final = "FOREBAY_CONFIG"
CONFIG_FILE: Final = Path("forebay.toml")


class Settings(
    AccessSettings,
    FetchSettings,
    ConnectionSettings,
    AlertSettings,
    CareSettings,
    LogSettings,
    TelemetrySettings,
    PageSettings,
    CanarySettings,
    WebhookSettings,
    WorkerSettings,
    ApiSettings,
    BlobSettings,
    QueueSettings,
    FolderSettings,
    ModelSettings,
):
    """Everything that can be set. Times are in seconds, sizes in bytes, sides in pixels.

    The documentation lists the groups from the last to the first.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, extra="forbid", frozen=True, protected_namespaces=()
    )

    @model_validator(mode="after")
    def _room_for_one(self) -> Self:
        for name in ("max_body_bytes", "fetch_max_bytes"):
            if getattr(self, name) > self.max_inflight_bytes:
                raise ValueError(f"max_inflight_bytes must be at least {name}")
        return self

    def of_canary(self) -> Settings:
        """Return the settings of a canary worker beside the stable ones."""
        return self.model_copy(
            update={
                "model": self.canary_model,
                "quantization": self.canary_quantization,
                "upstream_url": None,
                "model_name": "",
                "worker_group": "canary",
                "canary_model": "",
            }
        )

    def queue_limits(self) -> QueueLimits:
        """Return the queue's limits; every process of a queue must use the same ones."""
        return QueueLimits(
            max_waiting=self.max_waiting,
            max_waiting_tokens=self.max_waiting_tokens,
            tenant_max_waiting=self.tenant_max_waiting,
            tenant_max_waiting_tokens=self.tenant_max_waiting_tokens,
            tenant_rate_per_s=self.tenant_rate_per_s,
            tenant_burst=self.tenant_burst,
            starvation_share=self.starvation_share,
            lease_s=self.lease_s,
            result_ttl_s=self.result_ttl_s,
            answer_cache_s=self.answer_cache_s,
            max_answer_bytes=self.max_answer_bytes,
            blob_ttl_s=self.blob_ttl_s,
            max_deliveries=self.max_deliveries,
        )

    def check_door(self) -> None:
        """Raise SettingsError where a door opened by these settings would let the wrong ones in."""
        if fault := self.door_fault(self.host):
            raise SettingsError(fault)

    def to_environment(self) -> dict[str, str]:
        """Return the variables from which a child process reads these same settings."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return {
            f"{ENV_PREFIX}{name.upper()}": _as_text(value)
            for name, value in values.items()
            if value is not None
        }

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order the sources, the strongest first; .env files and secret folders are not read."""
        del dotenv_settings, file_secret_settings
        file = _config_file(os.environ)
        if file is None:
            return init_settings, env_settings
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=file)


def _config_file(environment: Mapping[str, str]) -> Path | None:
    named = environment.get(CONFIG_VARIABLE)
    if named is None:
        return CONFIG_FILE if CONFIG_FILE.is_file() else None
    if not named:
        return None
    file = Path(named).expanduser()
    if not file.is_file():
        raise SettingsError(f"{CONFIG_VARIABLE} names {file}, which is not a file")
    return file


def _as_text(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return str(value)
