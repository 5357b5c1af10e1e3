"""The queue as it should be, small and slow: what the Lua library is compared with.

It keeps no time. What happens by the clock (a lease or a deadline that runs out, a delay that is
over) is a call here.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from forebay.core.lifecycle import State, can_follow
from forebay.queue.groups import Group
from forebay.queue.limits import QueueLimits
from forebay.queue.ports import NewTask, Quota


@dataclass
class ModelTask:
    """One task as the model sees it."""

    name: str
    seq: int
    tenant: str
    level: int
    cost: int
    weight: float = 1.0
    key: str | None = None
    deadline: bool = False
    delayed: bool = False
    state: State = State.QUEUED
    worker: str = ""
    fence: int = 0
    deliveries: int = 0
    suspect: bool = False
    solo: bool = False
    cancel: bool = False
    delivered: bool = False
    group: Group | None = None
    said: list[str] = field(default_factory=list)

    def move(self, state: State) -> None:
        assert can_follow(self.state, state), f"{self.state} -> {state}"
        self.state = state

    @property
    def in_line(self) -> bool:
        return self.state is State.QUEUED and not self.suspect and not self.delayed


class QueueModel:
    """Caps, idempotency, lines and turns; who is given what, exactly."""

    def __init__(self, limits: QueueLimits) -> None:
        self.limits = limits
        self.tasks: dict[str, ModelTask] = {}
        self.keys: dict[tuple[str, str], tuple[str, str]] = {}
        self.paid: Counter[str] = Counter()
        self.rings: dict[int, dict[str, float]] = {level: {} for level in range(10)}
        self.clocks: dict[int, float] = dict.fromkeys(range(10), 0.0)
        self.credit = 0.0
        self.drained = False
        self.arrivals = 0
        self.share = 0.0
        self.due = 0.0
        self.heard: dict[Group, set[str]] = {group: set() for group in Group}
        self.room: set[str] = set()
        self.wants = False

    # What is where.

    def having(self, *states: State) -> list[ModelTask]:
        found = [each for each in self.tasks.values() if each.state in states]
        return sorted(found, key=lambda each: each.seq)

    @property
    def held(self) -> list[ModelTask]:
        return [each for each in self.tasks.values() if each.state.held]

    def held_by(self, worker: str) -> list[ModelTask]:
        return [each for each in self.held if each.worker == worker]

    @property
    def waiting(self) -> list[ModelTask]:
        return self.having(State.QUEUED)

    def line(self, level: int, tenant: str | None = None) -> list[ModelTask]:
        return [
            each
            for each in self.waiting
            if each.in_line and each.level == level and tenant in (None, each.tenant)
        ]

    # The door.

    def refusal(self, task: NewTask) -> str | None:
        """Why a task is refused; None: it is not."""
        quota, waiting = task.quota, self.waiting
        mine = [each for each in waiting if each.tenant == task.tenant]
        if quota.rate_per_s is not None and self.paid[task.tenant] >= quota.burst:
            return "rate_limited"
        if len(waiting) >= self.limits.max_waiting or (
            waiting
            and sum(each.cost for each in waiting) + task.cost.total
            > self.limits.max_waiting_tokens
        ):
            return "queue_full"
        return "tenant_over_quota" if _over(quota, mine, task.cost.total) else None

    def enqueue(self, task: NewTask) -> None:
        """Take a task that is not refused and whose key is new."""
        each = ModelTask(
            task.task_id,
            self.next_seq(),
            task.tenant,
            int(task.priority),
            task.cost.total,
            task.weight,
            deadline=task.deadline_s is not None,
            delayed=task.delay_s > 0,
        )
        if task.quota.rate_per_s is not None:
            self.paid[task.tenant] += 1
        if task.idempotency is not None:
            each.key = task.idempotency.key
            self.keys[each.tenant, each.key] = (each.name, task.idempotency.digest)
        self.tasks[each.name] = each
        if not each.delayed:
            self.stand(each)

    def next_seq(self) -> int:
        self.arrivals += 1
        return self.arrivals

    def stand(self, each: ModelTask) -> None:
        self.rings[each.level].setdefault(each.tenant, self.clocks[each.level])

    def stepped_out(self, each: ModelTask) -> None:
        """After a task has left its line: with nobody there, no turn is kept."""
        if not self.line(each.level):
            self.rings[each.level].clear()

    def end_waiting(self, each: ModelTask, state: State) -> None:
        was_in_line = each.in_line
        each.move(state)
        if was_in_line:
            self.stepped_out(each)

    def arrive(self, each: ModelTask) -> None:
        """Its delay is over."""
        each.delayed, each.seq = False, self.next_seq()
        self.stand(each)

    # Turns.

    def claim(
        self, worker: str, limit: int, free: int, group: Group = Group.STABLE
    ) -> list[ModelTask]:
        """Lease what is due to this worker now."""
        self.wants = False
        taken = self.choose(worker, limit, free, group)
        self.heard[group].add(worker)
        if self.share > 0 and group is Group.CANARY:
            (self.room.add if self.wants else self.room.discard)(worker)
        return taken

    def set_share(self, share: float) -> None:
        self.share, self.due = share, 0.0

    def forget_worker(self, worker: str) -> None:
        for names in (*self.heard.values(), self.room):
            names.discard(worker)

    def stands_in(self, group: Group) -> bool:
        return group is Group.CANARY and self.share >= 1 and not self.heard[Group.STABLE]

    def may_take(self, each: ModelTask, group: Group) -> bool:
        turn = self.due + self.share >= 1
        if group is Group.CANARY:
            if each.group is Group.STABLE:
                return self.stands_in(group)
            return self.share > 0 and turn
        if self.share <= 0 or each.group is Group.STABLE:
            return True
        if self.share >= 1:
            return not self.heard[Group.CANARY]
        return not (turn and self.room)

    def choose(self, worker: str, limit: int, free: int, group: Group) -> list[ModelTask]:
        if self.drained or limit < 1:
            return []
        held = self.held_by(worker)
        suspects = [each for each in self.waiting if each.suspect]
        if group is Group.CANARY and not self.stands_in(group):
            suspects = []
        solos = [each for each in self.held if each.solo]
        if len(held) == 1 and held[0].solo:
            return []
        if suspects and not held:
            return [self.lease(suspects[0], worker, group)]
        if suspects and not solos:
            return []
        return self.claim_in_turn(worker, limit, free, group, idle=not held)

    def claim_in_turn(
        self, worker: str, limit: int, free: int, group: Group, *, idle: bool
    ) -> list[ModelTask]:
        taken: list[ModelTask] = []
        while len(taken) < limit:
            each, credit = self.next_in_turn()
            if each is None or not self.may_take(each, group):
                self.wants = free > 0
                break
            if each.cost > free and not (idle and not taken):
                break
            tag = self.rings[each.level][each.tenant]
            taken.append(self.lease(each, worker, group))
            free -= each.cost
            self.credit += credit
            self.clocks[each.level] = tag
            if self.line(each.level):
                self.rings[each.level][each.tenant] = tag + max(each.cost, 1) / each.weight
        return taken

    def next_in_turn(self) -> tuple[ModelTask | None, float]:
        heads = [self.head(level) for level in range(10) if self.line(level)]
        if not heads:
            return None, 0
        urgent, *rest = heads
        if not rest or not self.limits.starvation_share:
            return urgent, 0
        patient = min(rest, key=lambda each: each.seq)
        if self.credit >= patient.cost:
            return patient, -patient.cost
        return urgent, self.limits.starvation_share * urgent.cost

    def head(self, level: int) -> ModelTask:
        ring = self.rings[level]
        while True:
            tenant = min(ring, key=lambda name: (ring[name], name))
            if line := self.line(level, tenant):
                return line[0]
            del ring[tenant]

    def lease(self, each: ModelTask, worker: str, group: Group) -> ModelTask:
        was_in_line = each.in_line
        if self.share > 0 and each.group is not Group.STABLE and not each.suspect:
            due = self.due + self.share - (group is Group.CANARY)
            self.due = min(32.0, max(0.0, due))
        if group is Group.CANARY and each.group is not Group.STABLE:
            each.group = Group.STABLE if each.suspect else Group.CANARY
        each.move(State.LEASED)
        each.solo, each.worker = each.suspect, worker
        each.fence += 1
        each.deliveries += 1
        if each.delivered:
            each.said = ["restart"]
        each.delivered = True
        if was_in_line:
            self.stepped_out(each)
        return each

    # The ways out of a worker's hands.

    def crash(self, each: ModelTask) -> None:
        """Its worker is gone, or its delivery came to nothing."""
        if each.group is Group.CANARY:
            self.spare(each)
            return
        each.fence += 1
        each.solo = False
        if each.cancel:
            each.move(State.CANCELLED)
        elif each.deliveries >= self.limits.max_deliveries:
            each.move(State.DEAD)
        else:
            each.suspect = True
            each.move(State.QUEUED)

    def spare(self, each: ModelTask) -> None:
        """A canary failed at it, or lost it."""
        each.fence += 1
        if each.cancel:
            each.move(State.CANCELLED)
            return
        each.deliveries -= 1
        each.group = Group.STABLE
        each.move(State.QUEUED)
        self.stand(each)

    def release(self, each: ModelTask) -> None:
        each.deliveries -= 1
        each.fence += 1
        each.solo = False
        each.move(State.CANCELLED if each.cancel else State.QUEUED)
        if each.group is Group.CANARY and not each.cancel:
            each.group = None
        if each.in_line:
            self.stand(each)

    def retry(self, each: ModelTask) -> None:
        each.move(State.QUEUED)
        each.deliveries, each.seq = 0, self.next_seq()
        each.suspect, each.deadline, each.said = True, False, []

    def drop(self, each: ModelTask) -> None:
        del self.tasks[each.name]
        if each.key is not None:
            del self.keys[each.tenant, each.key]


def _over(quota: Quota, mine: list[ModelTask], cost: int) -> bool:
    tokens = sum(each.cost for each in mine)
    too_many = quota.max_waiting is not None and len(mine) >= quota.max_waiting
    too_much = quota.max_waiting_tokens is not None and tokens + cost > quota.max_waiting_tokens
    return too_many or (bool(mine) and too_much)
