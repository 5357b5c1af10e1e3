"""The settings of the model: which one answers, here or elsewhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator

from forebay.config.group import SettingsGroup
from forebay.config.values import Texts

DEMO_MODEL: Final = "demo"
PACKAGE_FOLDER: Final = Path(__file__).parent.parent


class ModelSettings(SettingsGroup):
    """Which model answers; an upstream: by which server in its stead."""

    model: str = Field(DEMO_MODEL, description="Checkpoint folder, or `demo` for the built-in one.")
    model_name: str = Field("", description="Name that clients send; empty: from the folder.")
    model_aliases: Texts = Field(
        ("glm-4v-flash", "glm-4.6v-flash"),
        description="Other names that clients may send, comma-separated.",
    )
    device: str = Field("auto", description="Device of the engine: `auto`, `cpu`, `cuda`.")
    quantization: Literal["auto", "none", "int8", "fp8"] = Field(
        "auto", description="How the model's matrices are kept: `auto`, `none`, `int8`, `fp8`."
    )
    prompts_dir: Path | None = Field(
        None,
        description="Folder of prompt templates (`*.toml`), read at the start; unset: `prompts` in "
        "the model's folder, else the package's own.",
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

    @property
    def model_folder(self) -> Path:
        """The checkpoint's folder."""
        if self.model == DEMO_MODEL:
            return PACKAGE_FOLDER / "demo_model"
        return Path(self.model).expanduser().absolute()

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
