"""The fleet as administrators see it: every worker with its state, every supervisor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from forebay.ops.live.members import STACK, WORKER
from forebay.queue.fleet import DRAIN, RESTART, RUN, Member

GONE_S: Final = 10.0
"""A worker that has not been heard of for so long is gone; reports come every second."""


def workers_of(members: Sequence[Member], stall_s: float) -> list[dict[str, Any]]:
    """Return every worker: those that report, and those that their supervisor is starting."""
    stacks = [one for one in members if one.says["kind"] == STACK and one.silent_s <= GONE_S]
    home = {name: stack.name for stack in stacks for name in stack.says["workers"]}
    reporting = {one.name: one for one in members if one.says["kind"] == WORKER}
    found = [
        {**worker_of(one, stall_s), "stack": home.get(one.name)}
        for one in reporting.values()
        if not _replaced(one, stacks)
    ]
    there = {one["id"] for one in found}
    found += [
        _starting(name, pid, stack)
        for stack in stacks
        for name, pid in stack.says["workers"].items()
        if name not in there
    ]
    return sorted(found, key=lambda one: str(one["id"]))


def stacks_of(members: Iterable[Member]) -> list[dict[str, Any]]:
    """Return every supervisor that runs."""
    return [
        {
            "id": one.name,
            "host": one.says["host"],
            "pid": one.says["pid"],
            "workers": len(one.says["workers"]),
            "wanted": one.says["wanted"],
            "seen_at": one.seen_s,
        }
        for one in members
        if one.says["kind"] == STACK and one.silent_s <= GONE_S
    ]


def worker_of(member: Member, stall_s: float) -> dict[str, Any]:
    """Return a worker that has reported."""
    says, load = member.says, member.says["load"]
    shares = _hits(load)
    return {
        "id": member.name,
        "host": says["host"],
        "pid": says["pid"],
        "state": _state(member, stall_s),
        "leases": says["held"],
        "model": says["model"],
        "version": says["version"],
        "device": says["device"],
        "quantization": says["quantization"],
        "running": load["running"],
        "waiting": load["waiting"],
        "max_running": load["max_running"],
        "kv_use": _share(load["kv_blocks_used"], load["kv_blocks_total"]),
        **shares,
        "answered": says["answered"],
        "failed": says["failed"],
        "memory_bytes": says["memory_bytes"],
        "still_s": round(says["still_s"], 1),
        "seen_at": member.seen_s,
        "started_at": says["started_s"],
        "ordered": _ordered(member),
        "stack": None,
        "group": says["group"],
    }


def _starting(name: str, pid: int | None, stack: Member) -> dict[str, Any]:
    """Return a worker of which only its supervisor knows."""
    unknown = (
        "model", "version", "device", "quantization", "running", "waiting", "max_running",
        "kv_use", "prefix_hits", "encoder_hits", "memory_bytes", "started_at", "ordered",
    )  # fmt: skip
    return {
        "id": name,
        "host": stack.says["host"],
        "pid": pid,
        "state": "starting",
        "leases": 0,
        **dict.fromkeys(unknown),
        "answered": 0,
        "failed": 0,
        "still_s": 0.0,
        "seen_at": stack.seen_s,
        "stack": stack.name,
        "group": stack.says["group"],
    }


def _replaced(member: Member, stacks: Iterable[Member]) -> bool:
    """Whether its supervisor runs another process under its name by now, or is about to."""
    for stack in stacks:
        if member.name in stack.says["workers"]:
            pid = stack.says["workers"][member.name]
            return bool(pid != member.says["pid"] and stack.seen_s > member.seen_s)
    return False


def _state(member: Member, stall_s: float) -> str:
    says = member.says
    if member.silent_s > GONE_S:
        return "gone"
    if says["still_s"] > stall_s:
        return "hung"
    return str(says["state"])


def _ordered(member: Member) -> str | None:
    if member.wanted == f"{RESTART} {member.says['life']}":
        return RESTART
    return DRAIN if member.wanted == DRAIN else None


def _hits(load: Mapping[str, Any]) -> dict[str, float | None]:
    """Return what the caches spared of all that was asked of them since the worker's start."""
    prefix, encoder = load["prefix_tokens"], load["images_reused"]
    return {
        "prefix_hits": _share(prefix, prefix + load["prefill_tokens"]),
        "encoder_hits": _share(encoder, encoder + load["images_encoded"]),
    }


def _share(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else round(part / whole, 4)


def wanted_count(wanted: str) -> int | None:
    """Return how many workers a supervisor is to run, None where nobody has said."""
    word, _, count = wanted.partition(" ")
    return int(count) if word == RUN and count.isdigit() else None
