"""Whether canaries do worse than the stable workers: pure, from what was counted of both."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from forebay.queue.groups import Group, GroupCounts, Times, Trial

CHANCE: Final = 0.01
"""A difference that chance alone would show more often than this is none."""

_PART: Final = 0.95
_DIGITS: Final = 4


class Fault(StrEnum):
    """What canaries do worse."""

    FLAPPING = "flapping"
    FAILED = "failed"
    EMPTY = "empty"
    SLOW_START = "slow_start"
    """To its first token."""
    SLOW = "slow"
    """To the answer's end."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What is borne. ``failed``: by how much a share may exceed the stable workers' own.

    ``slower``: how many times their 95th percentile. ``restarts``: starts of one worker. ``least``:
    tasks below which nothing but these is judged. All within ``window_s``.
    """

    window_s: float = 300.0
    least: int = 20
    failed: float = 0.05
    slower: float = 1.5
    restarts: int = 2


def judge(trial: Trial, terms: Terms) -> Fault | None:
    """Return the first thing that canaries do worse, beyond chance; None: nothing known."""
    if trial.starts > terms.restarts * max(1, trial.workers[Group.CANARY]):
        return Fault.FLAPPING
    stable, canary = trial.counts[Group.STABLE], trial.counts[Group.CANARY]
    if canary.total < terms.least:
        return None
    faults = {
        Fault.FAILED: _worse(_bad(canary), canary, _share(_bad(stable), stable), terms),
        Fault.EMPTY: _worse(canary.empty, canary, _share(stable.empty, stable), terms),
        Fault.SLOW_START: _slower(canary.first, stable.first, terms),
        Fault.SLOW: _slower(canary.whole, stable.whole, terms),
    }
    return next((fault for fault, found in faults.items() if found), None)


def figures(trial: Trial) -> dict[str, Any]:
    """Return what both groups did, as the log and the API tell it."""
    return {group.value: _figures(trial.counts[group]) for group in Group} | {
        "canary_starts": trial.starts
    }


def tail(successes: int, tries: int, chance: float) -> float:
    """Return how likely at least so many of independent tries succeed, each with ``chance``."""
    if successes <= 0 or chance >= 1:
        return 1.0
    logs = (math.log(chance), math.log1p(-chance))
    return math.fsum(
        math.exp(_log_choose(tries, k) + k * logs[0] + (tries - k) * logs[1])
        for k in range(successes, tries + 1)
    )


def _bad(counts: GroupCounts) -> int:
    return counts.failed + counts.lost


def _worse(bad: int, canary: GroupCounts, stable_share: float, terms: Terms) -> bool:
    borne = min(1.0, stable_share + terms.failed)
    return bad > borne * canary.total and tail(bad, canary.total, borne) < CHANCE


def _slower(canary: Times, stable: Times, terms: Terms) -> bool:
    """Whether more than a twentieth is slower than what is borne, beyond chance."""
    if min(canary.total, stable.total) < terms.least:
        return False
    usual_s = stable.quantile_s(_PART)
    assert usual_s is not None
    slow = canary.above(terms.slower * usual_s)
    return tail(slow, canary.total, 1 - _PART) < CHANCE


def _share(some: int, counts: GroupCounts) -> float:
    return some / counts.total if counts.total else 0.0


def _figures(counts: GroupCounts) -> dict[str, Any]:
    return {
        "tasks": counts.total,
        "answered": counts.answered,
        "empty": counts.empty,
        "failed": counts.failed,
        "lost": counts.lost,
        "failed_share": round(_share(_bad(counts), counts), _DIGITS),
        "first_token_p95_s": _rounded(counts.first.quantile_s(_PART)),
        "answer_p95_s": _rounded(counts.whole.quantile_s(_PART)),
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, _DIGITS)


def _log_choose(of: int, some: int) -> float:
    return math.lgamma(of + 1) - math.lgamma(some + 1) - math.lgamma(of - some + 1)
