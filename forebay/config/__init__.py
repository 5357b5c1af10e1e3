"""The settings of every process: flag > environment > TOML file > default.

Only composition roots read them. An unknown key and a bad value stop the start, with the key's
name, and the nearest known one where the name was mistyped.
"""

from __future__ import annotations

from forebay.config.group import SettingsError
from forebay.config.loading import PEERS_VARIABLE, UNTOLD, load_settings
from forebay.config.model import PACKAGE_FOLDER
from forebay.config.settings import CONFIG_VARIABLE, ENV_PREFIX, Settings

__all__ = [
    "CONFIG_VARIABLE",
    "ENV_PREFIX",
    "PACKAGE_FOLDER",
    "PEERS_VARIABLE",
    "UNTOLD",
    "Settings",
    "SettingsError",
    "load_settings",
]
