"""What every benchmark's report shares: the machine, the commit, the files, the table's head."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench.plan import Raw

Summary = dict[str, float | None]


def machine(names: Sequence[str]) -> Raw:
    """Return what a figure depends on: the processor, its cores, memory, versions of packages."""
    packages: dict[str, str | None] = {}
    for name in names:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = None
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(pages / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": packages,
        "commit": commit(),
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass  # no /proc: macOS
    return platform.processor() or platform.machine()


def commit() -> str | None:
    """Return the commit that is measured, marked when files differ from it."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None  # an unpacked archive: no history


def write(path: Path, whole: Raw, table: Callable[[Raw], str]) -> None:
    """Replace the JSON file and, beside it, the table; a reader never sees half of one."""
    _replace(path, json.dumps(whole, indent=1, ensure_ascii=False) + "\n")
    _replace(path.with_suffix(".md"), table(whole))


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.part")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def head(whole: Raw, targets: Mapping[str, str]) -> list[str]:
    """Return the lines on the machine and the command, then each figure beside what is wanted."""
    about = whole["machine"]
    packages = ", ".join(f"{name} {number}" for name, number in about["packages"].items())
    lines = [
        f"{about['processor']}, {about['cores']} cores, {about['memory_gib']} GiB; "
        f"Python {about['python']}, {packages}; commit {about['commit']}.",
        "",
        f"`{whole['command']}`",
        "",
        "| Figure | Measured | Wanted |",
        "|---|---|---|",
    ]
    for name, wanted in targets.items():
        value = whole[name]
        lines.append(f"| `{name}` | {'-' if value is None else f'{value:.3g}'} | {wanted} |")
    return lines
