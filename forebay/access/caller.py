"""Who asks, and what they may."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from forebay.core.errors import ForbiddenError
from forebay.core.request import DEFAULT_TENANT, Priority, Tenant
from forebay.queue.ports import Quota


class Scope(StrEnum):
    """What a caller may do. None includes another.

    ``INFER``: send requests and read their answers. ``TASKS``: list, follow, cancel the tenant's
    tasks. ``ADMIN``: keys, drain, dead letters.
    """

    INFER = "infer"
    TASKS = "tasks"
    ADMIN = "admin"


MOST_URGENT: Final = Priority(0)


@dataclass(frozen=True, slots=True)
class Allowance:
    """How much a caller may have. None: no bound of its own.

    ``rate_per_s``: requests a second in the long run, ``burst`` of them at once; reading costs a
    tenth of sending. ``max_waiting`` tasks and ``max_waiting_tokens`` of its tenant may wait.
    ``max_unfinished``: tasks of this caller that wait or run at once. ``tokens_per_minute`` and
    ``tokens_per_day``: cost of what it sends. ``weight``: its share beside other tenants of the
    same priority. ``top_priority``: the most urgent level that it may ask for.
    """

    rate_per_s: float | None = None
    burst: int = 10
    max_waiting: int | None = None
    max_waiting_tokens: int | None = None
    max_unfinished: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_day: int | None = None
    weight: float = 1.0
    top_priority: Priority = MOST_URGENT

    def __post_init__(self) -> None:
        """Refuse what no caller could live with. Raises ValueError naming the field."""
        for name in _AT_LEAST_ONE:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1")
        if self.rate_per_s is not None and not 0 < self.rate_per_s <= 1e6:
            raise ValueError("rate_per_s must be over 0")
        if not 0.01 <= self.weight <= 100:
            raise ValueError("weight must be from 0.01 to 100")


_AT_LEAST_ONE: Final = (
    "burst", "max_waiting", "max_waiting_tokens", "max_unfinished", "tokens_per_minute",
    "tokens_per_day",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Caller:
    """A client that has come in. ``name`` is for logs, budgets and the audit, and no secret.

    ``address``: where the request came from, as far as it can be trusted.
    """

    name: str
    tenant: Tenant = DEFAULT_TENANT
    scopes: frozenset[Scope] = frozenset()
    allowance: Allowance = field(default_factory=Allowance)
    address: str = ""

    def require(self, scope: Scope) -> None:
        """Raise ForbiddenError unless the caller has the scope."""
        if scope not in self.scopes:
            raise ForbiddenError(f"this needs the scope {scope.value!r}, which {self.name} lacks")

    def priority(self, asked: Priority) -> Priority:
        """Return the level that the caller gets.

        The usual level, which a client that named none has too, is lowered to the caller's own.
        Raises ForbiddenError for one that was asked for and is above it.
        """
        top = self.allowance.top_priority
        if asked >= top:
            return asked
        if asked == Priority.NORMAL:
            return top
        raise ForbiddenError(
            f"the most urgent priority for {self.name} is {int(top)}, {int(asked)} was asked for",
            param="priority",
        )

    @property
    def quota(self) -> Quota:
        """What the queue holds the caller to."""
        return Quota(
            max_waiting=self.allowance.max_waiting,
            max_waiting_tokens=self.allowance.max_waiting_tokens,
            holder=self.name,
            max_unfinished=self.allowance.max_unfinished,
        )


ANONYMOUS: Final = Caller("anonymous", scopes=frozenset({Scope.INFER, Scope.TASKS}))
"""Who needs no credentials, where none are asked for."""
