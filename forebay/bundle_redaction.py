"""What a support bundle may show: settings without secrets, log lines by the allow-list, no keys.

Twice over: what is known to be safe is chosen by its type, and whatever is left is searched for
every secret that these settings know.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, get_args
from urllib.parse import unquote

from pydantic import SecretStr

from forebay.config import UNTOLD, Settings
from forebay.log_fields import ALLOWED
from forebay.logs import OWN

HIDDEN: Final = "(secret)"
_SHORTEST: Final = 4
"""A secret shorter than this is part of innocent words, too."""

_MOST_OF_A_FILE: Final = 2**16
_LOGIN: Final = re.compile(r"(?<=://)\S*@")
_QUERY: Final = re.compile(r"(?<=\w)[?#]\S*$")
_KEYS: Final = re.compile(
    r"\bfb_\w+?_[\w-]{16,}|\bwhsec_[\w+/=-]+|\bsk-[\w-]{8,}|(?i:bearer)\s+[\w.~+/=-]{8,}"
    r"|\beyJ[\w-]+\.[\w-]+\.[\w-]*"
)
"""Keys and tokens by their look: ours, webhooks', other services', JWTs."""


class Redactor:
    """Takes out every secret that these settings know; files that hold one are read for it."""

    def __init__(self, settings: Settings) -> None:
        found = set(_secrets_of(settings))
        self._secrets = sorted((one for one in found if len(one) >= _SHORTEST), key=len)[::-1]

    def text(self, text: str) -> str:
        """Return a text without secrets."""
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        return _KEYS.sub(HIDDEN, _LOGIN.sub("", text))

    def content(self, content: Any) -> Any:
        """Return what JSON can hold, each text in it without secrets."""
        match content:
            case str():
                return self.text(content)
            case dict():
                return {self.text(str(name)): self.content(one) for name, one in content.items()}
            case list() | tuple():
                return [self.content(one) for one in content]
            case bool() | int() | float() | None:
                return content
            case _:
                return self.text(str(content))

    def log_lines(self, lines: Iterable[str]) -> Iterator[str]:
        """Return log lines with the fields that may be logged; of others only how many there were.

        A library's words are left out, and so is what is no line of ours: it may be anything.
        """
        left_out = 0
        for line in lines:
            fields = _fields_of(line)
            if fields is None:
                left_out += 1
            else:
                yield json.dumps(self.content(fields), ensure_ascii=False)
        if left_out:
            yield json.dumps({"event": "left_out", "lines": left_out})


def settings_form(settings: Settings) -> dict[str, Any]:
    """Return the settings: of a secret whether it is set, of an address where it leads."""
    return {name: _shown(settings, name) for name in type(settings).model_fields}


def _shown(settings: Settings, name: str) -> Any:
    value = getattr(settings, name)
    if value is None or isinstance(value, bool | int | float):
        return value
    if _is_secret(name):
        return HIDDEN
    if isinstance(value, tuple):
        return [_place(str(one)) for one in value]
    return _place(str(value))


def _place(text: str) -> str:
    """Return an address without login and query; any other text as it is."""
    return _QUERY.sub("", _LOGIN.sub("", text)) if "://" in text else text


def _is_secret(name: str) -> bool:
    annotation = Settings.model_fields[name].annotation
    of_type = SecretStr in (annotation, *get_args(annotation))
    return of_type or (name in UNTOLD and not name.endswith("_url"))


def _secrets_of(settings: Settings) -> Iterator[str]:
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            yield from _parts(value.get_secret_value())
        elif isinstance(value, Path) and _holds_secret(name):
            yield from _parts(_start_of(value))
        elif isinstance(value, str) and "://" in value:
            yield from _secrets_of_address(value)
    yield from _parts(_start_of(settings.pepper_file(settings.data_dir)))


def _holds_secret(name: str) -> bool:
    base = name.removesuffix("_file")
    return name == "queue_tls_key" or (base in UNTOLD and base != name)


def _secrets_of_address(text: str) -> Iterator[str]:
    """Return the login of an address, its password, and what its query says; each unquoted, too."""
    for found in _told_of_address(text):
        yield from (found, unquote(found))


def _told_of_address(text: str) -> Iterator[str]:
    if (login := _LOGIN.search(text)) is not None:
        user, _, password = login[0].removesuffix("@").partition(":")
        yield from (password or user, login[0])
    if (query := _QUERY.search(text)) is not None:
        yield from (part.rpartition("=")[2] for part in re.split(r"[?&#]", query[0]))


def _parts(text: str) -> Iterator[str]:
    """Return a secret, and each of several that stand in one text."""
    yield text.strip()
    yield from (part for part in re.split(r"[\s,]+", text) if part)


def _start_of(file: Path) -> str:
    try:
        with file.expanduser().open("rb") as opened:
            return opened.read(_MOST_OF_A_FILE).decode("utf-8", errors="replace")
    except OSError:
        return ""  # what cannot be read here is in nothing that is written here


def _fields_of(line: str) -> dict[str, Any] | None:
    try:
        fields = json.loads(line)
    except ValueError:
        return None
    if not isinstance(fields, dict):
        return None
    kept = {name: value for name, value in fields.items() if name in ALLOWED}
    logger = str(kept.get("logger", ""))
    if logger != OWN and not logger.startswith(f"{OWN}."):
        kept["event"] = "(a library's line)"
    return kept
