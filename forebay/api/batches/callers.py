"""Who asked for a batch: its lines are that caller's tasks, by its quotas and budgets."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from forebay.access.caller import Allowance, Caller
from forebay.core.request import Priority
from forebay.queue.batches import BatchRecord


def told_caller(caller: Caller) -> dict[str, Any]:
    """Return what is kept of a batch's caller: its name and what it may have."""
    allowance = asdict(caller.allowance)
    return {
        "name": caller.name,
        "allowance": {**allowance, "top_priority": int(caller.allowance.top_priority)},
    }


def caller_of(batch: BatchRecord) -> Caller:
    """Return the caller as it was when the batch was made."""
    told = dict(batch.caller["allowance"])
    allowance = Allowance(**{**told, "top_priority": Priority(told["top_priority"])})
    return Caller(batch.caller["name"], batch.tenant, allowance=allowance)
