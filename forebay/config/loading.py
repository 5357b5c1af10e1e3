"""Reads the settings; a mistake in them stops the start with the key's name."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from typing import Any, Final

from pydantic import ValidationError

from forebay.config.group import SettingsError
from forebay.config.settings import CONFIG_VARIABLE, ENV_PREFIX, Settings

PEERS_VARIABLE: Final = "FOREBAY_PEERS"
"""Where the bench finds the engines it compares with; not a setting, and no mistake to have set."""

UNTOLD: Final = frozenset(
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
