"""Secrets in files: made at the first start, readable by their owner alone."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path
from typing import Final

from forebay.access.errors import AccessSetupError

_BYTES: Final = 32
_MOST_BYTES: Final = 16 * 1024


def read_secret_file(path: Path) -> str:
    """Return the text of a file without the line end; a secret setting ``x`` has a ``x_file``.

    Raises:
        AccessSetupError: it cannot be read, is empty or far too long.
    """
    try:
        with path.expanduser().open(encoding="utf-8") as file:
            text = file.read(_MOST_BYTES + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise AccessSetupError(f"the secret file {path} cannot be read: {error}") from error
    if len(text) > _MOST_BYTES:
        raise AccessSetupError(f"the secret file {path} is longer than {_MOST_BYTES} bytes")
    text = text.rstrip("\r\n")
    if not text:
        raise AccessSetupError(f"the secret file {path} is empty")
    return text


def load_or_make_pepper(path: Path) -> bytes:
    """Return the 256 bits by which keys are hashed; the first process to ask makes them, 0600.

    Raises:
        AccessSetupError: others may read the file, or it is not as it was made.
    """
    path = path.expanduser()
    try:
        if not path.exists():
            _make(path)
        mode = stat.S_IMODE(path.stat().st_mode)
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise AccessSetupError(f"the pepper file {path} cannot be used: {error}") from error
    if mode & 0o077:
        raise AccessSetupError(f"others may read the pepper file {path}. Run: chmod 600 {path}")
    try:
        pepper = bytes.fromhex(text)
    except ValueError:
        pepper = b""
    if len(pepper) < _BYTES:
        raise AccessSetupError(
            f"the pepper file {path} must hold {_BYTES} bytes or more as hex. Restore it from the "
            "backup; if it is lost, remove it and every key, and make new keys"
        )
    return pepper


def _make(path: Path) -> None:
    """Write the file whole or not at all; of two processes the first one's stays."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            path.hardlink_to(draft)
        except FileExistsError:
            return
    finally:
        draft.unlink()
