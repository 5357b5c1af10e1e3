"""Checks the pages' scripts with TypeScript, by their JSDoc: ``make page-types``.

TypeScript is fetched once from npm's registry, one version whose bytes are known, into the
environment's folder. It runs on the system's Node, else on the one that Playwright brings.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Final

import playwright

ROOT: Final = Path(__file__).resolve().parent.parent
VERSION: Final = "5.9.3"
SHA512: Final = (
    "jl1vZzPDinLr9eUt3J/t7V6FgNEw9QjvBPdysz9KfQDD41fQrC2Y4vKQdiaUpFT4bXlb1RHhLpp8wtm6M5TgSw=="
)
FOLDER: Final = Path(sys.prefix) / "share" / f"typescript-{VERSION}"
LIMIT_S: Final = 300


class NoTypeScriptError(Exception):
    """TypeScript cannot be had here; the message says why."""


def main() -> int:
    """Check; return TypeScript's exit status, having printed what it found."""
    try:
        return check(typescript())
    except NoTypeScriptError as error:
        print(error, file=sys.stderr)
        return 1


def check(folder: Path) -> int:
    """Run the checker that lies in ``folder`` over the pages."""
    command = [
        node(),
        str(folder / "package" / "lib" / "tsc.js"),
        "-p",
        str(ROOT / "jsconfig.json"),
    ]
    return subprocess.run(command, check=False, timeout=LIMIT_S).returncode


def node() -> str:
    """Return the system's Node, else Playwright's."""
    return shutil.which("node") or str(Path(playwright.__file__).parent / "driver" / "node")


def typescript() -> Path:
    """Return the folder of TypeScript, fetched where it is not there yet.

    Raises:
        NoTypeScriptError: there is no npm, no registry, or the bytes are others.
    """
    if not FOLDER.is_dir():
        with tempfile.TemporaryDirectory() as folder:
            _unpack(_fetched(Path(folder)))
    return FOLDER


def _fetched(folder: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise NoTypeScriptError("npm is not installed: it fetches TypeScript")
    try:
        subprocess.run(
            [npm, "pack", "--silent", f"typescript@{VERSION}"],
            cwd=folder,
            check=True,
            capture_output=True,
            timeout=LIMIT_S,
        )
    except (subprocess.SubprocessError, OSError) as error:
        raise NoTypeScriptError(f"npm cannot fetch typescript@{VERSION}: {error}") from error
    return folder / f"typescript-{VERSION}.tgz"


def _unpack(archive: Path) -> None:
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if digest != SHA512:
        raise NoTypeScriptError(f"typescript@{VERSION} is not what it was: SHA-512 {digest}")
    FOLDER.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER.parent) as folder, tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
        Path(folder).rename(FOLDER)
        Path(folder).mkdir()  # for the context to remove


if __name__ == "__main__":
    sys.exit(main())
