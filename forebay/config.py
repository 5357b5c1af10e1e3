"""The settings of every process: flag > environment > TOML file > default.

Only composition roots read them. An unknown key and a bad value stop the start, with the key's
name, and the nearest known one where the name was mistyped.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from forebay.access.errors import AccessSetupError
from forebay.access.secret_file import read_secret_file
from forebay.config_access import AccessSettings
from forebay.config_alerts import AlertSettings
from forebay.config_canary import CanarySettings
from forebay.config_care import CareSettings
from forebay.config_connections import ConnectionSettings
from forebay.config_fetch import FetchSettings
from forebay.config_logs import LogSettings
from forebay.config_pages import PageSettings
from forebay.config_telemetry import TelemetrySettings, read_headers
from forebay.ops.telemetry import TelemetryTerms
from forebay.outbound.allowed import check_ports, read_allowed
from forebay.outbound.signing import read_secrets
from forebay.queue.address import Login, ServerAddress, Tls, parse_address
from forebay.queue.blob_store import BlobAddress, parse_blob_address
from forebay.queue.blobs_s3 import Bucket
from forebay.queue.limits import QueueLimits

ENV_PREFIX = "FOREBAY_"
CONFIG_VARIABLE = "FOREBAY_CONFIG"
PEERS_VARIABLE = "FOREBAY_PEERS"
"""Where the bench finds the engines it compares with; not a setting, and no mistake to have set."""

CONFIG_FILE = Path("forebay.toml")
DEMO_MODEL = "demo"
PACKAGE_FOLDER = Path(__file__).parent


class SettingsError(Exception):
    """The settings cannot be used; the message names each key at fault and its mend."""


def default_data_dir() -> Path:
    """Return the folder for state that outlives a process (XDG state home)."""
    state_home = os.environ.get("XDG_STATE_HOME")
    base = Path(state_home) if state_home else Path.home() / ".local" / "state"
    return base / "forebay"


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
):
    """Everything that can be set. Times are in seconds, sizes in bytes, sides in pixels."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, extra="forbid", frozen=True, protected_namespaces=()
    )

    model: str = Field(DEMO_MODEL, description="Checkpoint folder, or `demo` for the built-in one.")
    model_name: str = Field("", description="Name that clients send; empty: from the folder.")
    model_aliases: Annotated[tuple[str, ...], NoDecode] = Field(
        ("glm-4v-flash", "glm-4.6v-flash"),
        description="Other names that clients may send, comma-separated.",
    )
    device: str = Field("auto", description="Device of the engine: `auto`, `cpu`, `cuda`.")
    quantization: Literal["auto", "none", "int8", "fp8"] = Field(
        "auto", description="How the model's matrices are kept: `auto`, `none`, `int8`, `fp8`."
    )

    upstream_url: str | None = Field(
        None,
        description="OpenAI-compatible server that answers instead of a model here, with or "
        "without `/v1`.",
    )
    upstream_model: str = Field("", description="Model to ask it for; empty: its only one.")
    upstream_api_key: SecretStr | None = Field(None, description="Key that it wants.")
    upstream_api_key_file: Path | None = Field(None, description="File that holds that key.")
    upstream_concurrency: int = Field(
        16, ge=1, le=4096, description="Requests that a worker keeps running there."
    )
    upstream_connect_s: float = Field(5.0, gt=0, description="How long a connection may take.")
    upstream_idle_s: float = Field(
        120.0, gt=0, description="Longest silence of the upstream in an answer, its first byte too."
    )
    upstream_answer_s: float = Field(
        900.0, gt=0, description="Longest that one answer of the upstream may take."
    )
    upstream_context_tokens: int = Field(
        131_072, ge=1, description="Context of its model, where `model` names no folder to read."
    )

    host: str = Field("127.0.0.1", description="Address that the API listens on.")
    port: int = Field(8080, ge=1, le=65535, description="Port that the API listens on.")

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
    data_dir: Path = Field(
        default_factory=default_data_dir, description="Folder of the queue, pictures and logs."
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
    blob_store: str = Field(
        "",
        description="Where pictures are kept: a folder, `redis` (the queue's server), or "
        "`s3://BUCKET/PREFIX`; empty: a folder in `data_dir`.",
    )
    blob_ttl_s: int = Field(
        86_400, ge=600, description="How long a picture is kept after the last task needed it."
    )
    blob_max_bytes: int = Field(
        10 * 2**30, ge=2**20, description="Most that a folder of pictures may hold."
    )
    s3_endpoint: str | None = Field(
        None, description="Server of the bucket, where it is not Amazon's: http(s)://HOST:PORT."
    )
    s3_region: str | None = Field(None, description="Region of the bucket.")
    s3_access_key_id: str | None = Field(
        None, description="Key id for the bucket; unset: environment, web identity or instance."
    )
    s3_secret_access_key: SecretStr | None = Field(None, description="Secret of that key.")
    s3_secret_access_key_file: Path | None = Field(None, description="File that holds it.")

    max_body_bytes: int = Field(20 * 2**20, ge=1024, description="Largest request body.")
    body_timeout_s: float = Field(
        60.0, gt=0, description="How long a request's body may take to arrive."
    )
    max_inflight_bytes: int = Field(
        2**30,
        ge=1024,
        description="Bytes of bodies, of every copy of them and of fetched pictures that the API "
        "holds at once; at least `max_body_bytes`. More requests are refused for the moment. A "
        "body of JSON counts four times, a form's file once or twice.",
    )
    max_file_bytes: int = Field(
        100 * 2**20, ge=1024, description="Largest file of requests that may be uploaded."
    )
    files_bytes: int = Field(
        10 * 2**30, ge=2**20, description="Bytes that uploaded files and batches' outputs may take."
    )
    batch_lines: int = Field(50_000, ge=1, description="Requests in one batch.")
    batch_window: int = Field(
        32, ge=1, le=1024, description="Requests of one batch that are in the queue at once."
    )
    max_image_pixels: int = Field(50_000_000, ge=1, description="Largest picture, width x height.")
    max_images: int = Field(16, ge=1, description="Pictures in one request.")
    image_side: int = Field(1024, ge=28, description="Longest side of a stored picture.")
    image_quality: int = Field(85, ge=1, le=100, description="JPEG quality of a stored picture.")
    image_processes: int = Field(
        2,
        ge=1,
        le=64,
        description="Processes that decode pictures, shared out among the API's own, each of "
        "which has one at least.",
    )
    max_tokens_default: int = Field(256, ge=1, description="Answer tokens when none are asked.")
    max_tokens_limit: int = Field(2048, ge=1, description="Most answer tokens one may ask.")
    max_choices: int = Field(8, ge=1, le=128, description="Most answers (`n`) one may ask.")
    answer_timeout_s: float = Field(
        600.0, gt=0, description="How long a plain (unstreamed) call waits for its answer."
    )

    prompts_dir: Path | None = Field(
        None,
        description="Folder of prompt templates (`*.toml`), read at the start; unset: `prompts` in "
        "the model's folder, else the package's own.",
    )

    workers: int = Field(1, ge=1, le=64, description="Worker processes on this machine.")
    engine_threads: int = Field(0, ge=0, description="CPU threads of an engine; 0: chosen.")
    max_running: int = Field(16, ge=1, description="Sequences that an engine runs at once.")
    token_budget: int = Field(
        0, ge=0, description="Tokens that an engine takes in a step; 0: chosen for its device."
    )
    memory_share: float = Field(
        0.9, gt=0, le=1, description="Share of the device's free memory that an engine may take."
    )
    context_tokens: int = Field(
        4096, ge=64, description="Tokens, prompt and answer, that one request must be able to have."
    )

    webhook_secret: SecretStr | None = Field(
        None,
        description="Secrets that sign webhooks (`whsec_` and base64), comma-separated: each "
        "signs. Without one, here or in a file, webhooks are off.",
    )
    webhook_secret_file: Path | None = Field(
        None, description="File with such secrets, one a line; read at the start of the API."
    )
    webhook_allow: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Hosts, addresses and networks (CIDR) inside that webhooks may reach, "
        "comma-separated; the public internet always.",
    )
    webhook_ports: Annotated[tuple[int, ...], NoDecode] = Field(
        (80, 443), description="Ports that webhooks may reach, comma-separated."
    )
    webhook_tries: int = Field(
        8, ge=1, le=20, description="Attempts to deliver a webhook; 8 take about a day."
    )
    webhook_timeout_s: float = Field(
        15.0, gt=0, le=120, description="How long a receiver has to take a webhook."
    )
    webhook_concurrency: int = Field(
        32,
        ge=1,
        le=1024,
        description="Webhooks that the API delivers at once, shared out among its processes.",
    )
    webhook_host_concurrency: int = Field(
        4, ge=1, le=1024, description="Of these, to one receiver."
    )

    stall_s: float = Field(
        10.0,
        ge=1,
        le=600,
        description="How long a worker's engine may stand still with work, or a worker be silent, "
        "before its process is replaced. A layer run is a movement.",
    )
    health_timeout_s: float = Field(
        15.0, gt=0, le=600, description="How long the model may take to answer a health check."
    )
    drain_s: float = Field(20.0, ge=0, description="How long a stop waits for running tasks.")

    @field_validator("model_aliases", "webhook_allow", "webhook_ports", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(name.strip() for name in value.split(",") if name.strip())
        return value

    @field_validator("upstream_url")
    @classmethod
    def _http(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be of the form http://HOST:PORT or https://HOST")
        if parts.username is not None or parts.query or parts.fragment:
            raise ValueError("takes no user, query or fragment; a key goes into upstream_api_key")
        return value.rstrip("/")

    @field_validator("upstream_api_key")
    @classmethod
    def _header(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.fullmatch(r"[!-~]*", value.get_secret_value()):
            raise ValueError("must be of visible ASCII characters, without spaces or line ends")
        return value

    @field_validator("webhook_secret")
    @classmethod
    def _secrets(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            read_secrets(value.get_secret_value())
        return value

    @field_validator("webhook_allow")
    @classmethod
    def _allowed(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        read_allowed(value)
        return value

    @field_validator("webhook_ports")
    @classmethod
    def _ports(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        check_ports(value)
        return value

    @model_validator(mode="after")
    def _room_for_one(self) -> Self:
        for name in ("max_body_bytes", "fetch_max_bytes"):
            if getattr(self, name) > self.max_inflight_bytes:
                raise ValueError(f"max_inflight_bytes must be at least {name}")
        return self

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

    @field_validator("blob_store")
    @classmethod
    def _blob_address(cls, value: str) -> str:
        if value:
            parse_blob_address(value)
        return value

    @field_validator("s3_endpoint")
    @classmethod
    def _s3_server(cls, value: str | None) -> str | None:
        Bucket("pictures", endpoint=value)
        return value

    @model_validator(mode="after")
    def _whole_key(self) -> Self:
        if (self.s3_access_key_id is None) != (self.s3_secret_access_key is None):
            raise ValueError("s3_access_key_id and s3_secret_access_key are set together or not")
        return self

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @property
    def model_folder(self) -> Path:
        """The checkpoint's folder."""
        if self.model == DEMO_MODEL:
            return PACKAGE_FOLDER / "demo_model"
        return Path(self.model).expanduser().absolute()

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

    @property
    def profile_folder(self) -> Path | None:
        """The folder that the door reads prices from; None before an upstream without one."""
        has_none = self.upstream_url is not None and self.model == DEMO_MODEL
        return None if has_none else self.model_folder

    @property
    def prompts_folder(self) -> Path:
        """The folder of the prompt templates: as set, else the model's own, else the package's."""
        if self.prompts_dir is not None:
            return self.prompts_dir.expanduser().absolute()
        model = self.profile_folder
        if model is not None and (model / "prompts").is_dir():
            return model / "prompts"
        return PACKAGE_FOLDER / "prompts"

    @property
    def served_name(self) -> str:
        """The model's name for clients: as set, else made from the upstream's or the folder's."""
        if self.model_name:
            return self.model_name
        if self.upstream_url is not None and (self.upstream_model or self.profile_folder is None):
            return self.upstream_model.rstrip("/").rpartition("/")[2] or "upstream"
        return "forebay-demo" if self.model == DEMO_MODEL else self.model_folder.name

    @property
    def blob_dir(self) -> Path:
        """Folder of the normalised pictures; empty where they are kept elsewhere."""
        return self.blob_address().folder or self.data_dir / "blobs"

    def blob_address(self) -> BlobAddress:
        """Return where the normalised pictures are kept."""
        address = parse_blob_address(self.blob_store or str(self.data_dir / "blobs"))
        if address.bucket is None:
            return replace(address, max_bytes=self.blob_max_bytes)
        bucket = replace(
            address.bucket,
            endpoint=self.s3_endpoint,
            region=self.s3_region,
            key_id=self.s3_access_key_id,
            secret=self.secret_of("s3_secret_access_key"),
        )
        return replace(address, bucket=bucket)

    @property
    def files_dir(self) -> Path:
        """Folder of uploaded files and of batches' outputs."""
        return self.data_dir / "files"

    @property
    def batches_dir(self) -> Path:
        """Folder of what running batches need."""
        return self.data_dir / "batches"

    @property
    def queue_dir(self) -> Path:
        """Folder of the private queue server."""
        return self.data_dir / "queue"

    @property
    def run_dir(self) -> Path:
        """Folder of status files and logs of the running processes."""
        return self.data_dir / "run"

    def webhook_secrets(self) -> tuple[bytes, ...]:
        """Return the secrets that sign webhooks, those of the setting before those of the file.

        Raises:
            SettingsError: the file cannot be read, or holds something else.
        """
        own = self.webhook_secret.get_secret_value() if self.webhook_secret else ""
        if self.webhook_secret_file is None:
            return read_secrets(own)
        try:
            text = self.webhook_secret_file.expanduser().read_text(encoding="utf-8")
            of_file = read_secrets(text)
        except (OSError, ValueError) as error:
            raise SettingsError(f"webhook_secret_file: {error}") from error
        if not of_file:
            raise SettingsError(f"webhook_secret_file: {self.webhook_secret_file} holds no secret")
        return read_secrets(own) + of_file

    def queue_address(self) -> ServerAddress:
        """Return where the queue is, and who we are there. Raises SettingsError without a URL."""
        if self.queue_url is None:
            raise SettingsError("queue_url is not set: where is the queue?")
        login = Login(
            self.queue_username or None,
            _secret(self.queue_password),
            self.queue_password_file,
            self.secret_of("queue_sentinel_password"),
        )
        tls = Tls(self.queue_tls_ca, self.queue_tls_cert, self.queue_tls_key, self.queue_tls_verify)
        return parse_address(self.queue_url, login, tls)

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

    def secret_of(self, name: str) -> str | None:
        """Return a secret setting, or what the file of ``name``_file holds.

        Raises SettingsError for a file without a secret, or where both are set.
        """
        own, file = _secret(getattr(self, name)), getattr(self, f"{name}_file")
        if file is None:
            return own
        if own is not None:
            raise SettingsError(f"{name} and {name}_file are set; keep one of them")
        try:
            return read_secret_file(file)
        except AccessSetupError as error:
            raise SettingsError(f"{name}_file: {error}") from error

    def telemetry(self) -> TelemetryTerms:
        """Return where traces and metrics go. Raises SettingsError for headers that are none."""
        try:
            headers = read_headers(self.secret_of("otlp_headers") or "")
        except ValueError as error:
            raise SettingsError(f"otlp_headers: {error}") from error
        return TelemetryTerms(self.otlp_endpoint, headers, self.otlp_metrics_s, self.otlp_sample)

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


def load_settings(**flags: Any) -> Settings:
    """Read the settings; a flag that is None was not given.

    Raises:
        SettingsError: an unknown key, a bad value, or a configuration file that cannot be read.
    """
    _refuse_unknown_variables(os.environ)
    try:
        return Settings(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        raise SettingsError("\n".join(_explain(one) for one in error.errors())) from error
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"the configuration file cannot be read: {error}") from error


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


def _refuse_unknown_variables(environment: Mapping[str, str]) -> None:
    known = {f"{ENV_PREFIX}{name.upper()}" for name in Settings.model_fields}
    known |= {CONFIG_VARIABLE, PEERS_VARIABLE}
    unknown = [name for name in environment if name.startswith(ENV_PREFIX) and name not in known]
    if unknown:
        raise SettingsError(
            "\n".join(f"{name}: no such setting{_nearest(name, known)}" for name in unknown)
        )


def _nearest(name: str, known: set[str]) -> str:
    found = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {found[0]}?" if found else ""


def _explain(error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"]) or "settings"
    if error["type"] == "extra_forbidden":
        return f"{key}: no such setting{_nearest(key, set(Settings.model_fields))}"
    got = "" if key in UNTOLD else f", got {error.get('input')!r}"
    return f"{key} ({ENV_PREFIX}{key.upper()}): {error['msg']}{got}"


UNTOLD = frozenset(
    {
        "jwt_secret",
        "api_key",
        "upstream_api_key",
        "upstream_url",
        "queue_url",
        "queue_password",
        "queue_sentinel_password",
        "webhook_secret",
        "s3_secret_access_key",
        "alert_dingtalk_url",
        "alert_dingtalk_secret",
        "alert_wecom_url",
        "alert_feishu_url",
        "alert_feishu_secret",
        "alert_slack_url",
        "alert_webhook_url",
        "alert_webhook_secret",
        "otlp_headers",
        "alert_smtp_password",
        "settings",
    }
)
"""Settings that may hold a secret, so that a bad value is not repeated."""


def _secret(value: SecretStr | None) -> str | None:
    return value.get_secret_value() if value else None


def _as_text(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return str(value)
