"""The file of a backup: a tar with a manifest, written whole or not at all, checked before use."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Final

from forebay.queue.errors import BackupError

FORM: Final = 1
MANIFEST: Final = "manifest.json"
SNAPSHOT: Final = "queue.rdb"
MEMBER: Final = re.compile(r"queue\.rdb|blobs/[0-9a-f]{64}")
LARGEST_MANIFEST: Final = 256 * 2**20
PIECE: Final = 2**20
ANOTHER: Final = "Take another backup: this one cannot be trusted."


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is in a backup. ``files``: member -> SHA-256. ``missing``: pictures that were gone.

    ``made``: when, in ISO 8601. ``tasks``: accepted and not ended at that moment.
    """

    made: str
    release: str
    tasks: int
    files: Mapping[str, str]
    missing: tuple[str, ...] = ()
    form: int = FORM

    @property
    def pictures(self) -> int:
        """How many pictures the backup has."""
        return sum(name != SNAPSHOT for name in self.files)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_archive(file: Path, manifest: Manifest, sources: Mapping[str, Path]) -> int:
    """Write a backup of ``sources`` (member -> file) for the owner alone; return its bytes.

    Raises BackupError, and then ``file`` is as it was.
    """
    partial = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            _write_members(out, manifest, sources)
            out.flush()
            os.fsync(out.fileno())
        size = partial.stat().st_size
        partial.replace(file)
        _sync_folder(file.parent)
    except OSError as error:
        raise BackupError(
            f"{file} cannot be written: {error.strerror or error}.", mend="Nothing was kept of it."
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    return size


def _write_members(out: IO[bytes], manifest: Manifest, sources: Mapping[str, Path]) -> None:
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        text = json.dumps(asdict(manifest), indent=1).encode()
        tar.addfile(_member(MANIFEST, len(text)), io.BytesIO(text))
        for name, path in sources.items():
            with path.open("rb") as file:
                tar.addfile(_member(name, os.fstat(file.fileno()).st_size), file)


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o600
    return member


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def reading(file: Path) -> Iterator[tuple[Manifest, tarfile.TarFile]]:
    """Open a backup whose every byte has been checked. Raises BackupError."""
    try:
        with tarfile.open(file, mode="r:") as tar:
            manifest = _read_manifest(tar, file)
            _check_members(tar, manifest, file)
            yield manifest, tar
    except (tarfile.TarError, EOFError) as error:
        raise BackupError(
            f"{file} is no backup, or is cut short: {error}.", mend=ANOTHER
        ) from error
    except FileNotFoundError as error:
        raise BackupError(f"There is no {file}.", mend="Name the backup's file.") from error


def _read_manifest(tar: tarfile.TarFile, file: Path) -> Manifest:
    first = tar.next()
    if first is None or first.name != MANIFEST or first.size > LARGEST_MANIFEST:
        raise BackupError(f"{file} is no backup of a queue.", mend="Name the backup's file.")
    try:
        raw: dict[str, Any] = json.loads(_open(tar, first).read())
        manifest = Manifest(**raw | {"missing": tuple(raw["missing"])})
    except (ValueError, TypeError, KeyError) as error:
        raise BackupError(f"The manifest of {file} cannot be read.", mend=ANOTHER) from error
    if manifest.form != FORM:
        raise BackupError(
            f"{file} is of form {manifest.form}.", mend="Restore it with the release that made it."
        )
    return manifest


def _check_members(tar: tarfile.TarFile, manifest: Manifest, file: Path) -> None:
    found = {}
    for member in tar.getmembers()[1:]:
        if not member.isfile() or not MEMBER.fullmatch(member.name):
            raise BackupError(f"{file} has a part that is no backup's.", mend=ANOTHER)
        found[member.name] = hashlib.file_digest(_open(tar, member), "sha256").hexdigest()
    if found != dict(manifest.files) or SNAPSHOT not in found:
        raise BackupError(f"{file} is damaged: its checksums do not hold.", mend=ANOTHER)


def _open(tar: tarfile.TarFile, member: tarfile.TarInfo) -> io.BufferedReader:
    content = tar.extractfile(member)
    assert isinstance(content, io.BufferedReader)  # it is a regular file
    return content


def extract(tar: tarfile.TarFile, name: str, to: Path) -> None:
    """Write a checked member to ``to``, synced."""
    content = _open(tar, tar.getmember(name))
    with to.open("wb") as out:
        while piece := content.read(PIECE):
            out.write(piece)
        out.flush()
        os.fsync(out.fileno())
