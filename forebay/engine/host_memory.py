"""Memory that a process on a CPU may still take, as the kernel and its control group allow."""

from __future__ import annotations

from pathlib import Path

ROOT = Path("/")


def available_bytes(root: Path = ROOT) -> int | None:
    """Return the bytes that may still be taken, or None where no one says (macOS).

    The least of what the machine has available and of what each control group above the process
    leaves. File pages that the kernel would drop do not count as taken.
    """
    found = [_machine(root), *_groups_v2(root), _group_v1(root)]
    return min((bound for bound in found if bound is not None), default=None)


def _machine(root: Path) -> int | None:
    for line in _lines(root / "proc/meminfo"):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _groups_v2(root: Path) -> list[int | None]:
    own = next((line[3:] for line in _lines(root / "proc/self/cgroup") if line[:3] == "0::"), None)
    if own is None:
        return []
    top = root / "sys/fs/cgroup"
    folder = top / own.lstrip("/")
    groups = [folder, *folder.parents]
    inside = [group for group in groups if group == top or top in group.parents]
    return [_left(group, "memory.max", "memory.current", "inactive_file") for group in inside]


def _group_v1(root: Path) -> int | None:
    folder = root / "sys/fs/cgroup/memory"
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    return _left(folder, *names)


def _left(group: Path, limit_file: str, usage_file: str, dropped_key: str) -> int | None:
    limit, usage = _number(group / limit_file), _number(group / usage_file)
    if limit is None or usage is None:
        return None
    stat = dict(line.split() for line in _lines(group / "memory.stat"))
    return max(0, limit - usage + int(stat.get(dropped_key, 0)))


def _number(file: Path) -> int | None:
    first = next(iter(_lines(file)), "max").strip()
    return int(first) if first.isdigit() else None


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="ascii").splitlines()
    except OSError:  # not this kernel, not this version of control groups
        return []
