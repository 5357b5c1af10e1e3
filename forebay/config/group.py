"""What every group of settings is made of, and what is raised where settings cannot be used."""

from __future__ import annotations

from pydantic import SecretStr
from pydantic_settings import BaseSettings

from forebay.access.errors import AccessSetupError
from forebay.access.secret_file import read_secret_file


class SettingsError(Exception):
    """The settings cannot be used; the message names each key at fault and its mend."""


class SettingsGroup(BaseSettings):
    """Settings of one topic. Keys are the same in all sources: see ``forebay.config.settings``."""

    def secret_of(self, name: str) -> str | None:
        """Return a secret setting, or what the file of ``name``_file holds.

        Raises SettingsError for a file without a secret, or where both are set.
        """
        own, file = plain(getattr(self, name)), getattr(self, f"{name}_file")
        if file is None:
            return own
        if own is not None:
            raise SettingsError(f"{name} and {name}_file are set; keep one of them")
        try:
            return read_secret_file(file)
        except AccessSetupError as error:
            raise SettingsError(f"{name}_file: {error}") from error


def plain(value: SecretStr | None) -> str | None:
    """Return a secret's text; None where it is not set, or is empty."""
    return value.get_secret_value() if value else None
