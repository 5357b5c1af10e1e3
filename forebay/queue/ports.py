"""What others may ask of the queue: one narrow protocol for each kind of caller."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, NewType, Protocol

from forebay.core.events import Choice, Piece, TokenLogprob, Usage
from forebay.core.lifecycle import State
from forebay.core.request import (
    DEFAULT_TENANT,
    Cost,
    InferenceRequest,
    Priority,
    TaskId,
    Tenant,
    Terms,
)
from forebay.core.trace import Trace
from forebay.queue import groups

Fence = NewType("Fence", int)
"""Rises with every delivery of a task; a write with an older one is refused."""

StreamId = NewType("StreamId", str)
"""Place in a token stream; ``STREAM_START`` is before its first entry."""

STREAM_START = StreamId("0-0")


@dataclass(frozen=True, slots=True)
class Idempotency:
    """What makes a request that is sent again the same one.

    ``key``: chosen by the client, its tenant's own. ``digest``: of all that was asked; the same key
    with another digest is refused.
    """

    key: str
    digest: str


@dataclass(frozen=True, slots=True)
class Quota:
    """What one tenant may have. None: no bound of its own.

    ``max_waiting`` tasks and ``max_waiting_tokens`` of cost may wait at once. ``rate_per_s``: tasks
    a second in the long run, ``burst`` of them at once. ``max_unfinished`` tasks of one ``holder``,
    a name for one of the tenant's callers, may wait or run at once.
    """

    max_waiting: int | None = None
    max_waiting_tokens: int | None = None
    rate_per_s: float | None = None
    burst: int = 1
    holder: str | None = None
    max_unfinished: int | None = None


UNBOUNDED: Final = Quota()


class Reuse(StrEnum):
    """How a task was spared its own run: by an answer kept, or by an equal task in flight."""

    CACHED = "cached"
    JOINED = "joined"


@dataclass(frozen=True, slots=True)
class SameAnswer:
    """What tasks with an equal answer have in common; the door sets it at temperature 0 only.

    ``digest``: of pictures, prompt, sampling and model, and of the tenant unless answers are
    shared. ``read``: an answer kept, or an equal task in flight, will do. ``keep``: this one's
    answer may serve others.
    """

    digest: str
    read: bool = True
    keep: bool = True


@dataclass(frozen=True, slots=True)
class NewTask:
    """A task at the door.

    ``deadline_s``: seconds from now after which it must not start; ``delay_s``: seconds from now
    before which it must not. ``weight``: the tenant's share beside other tenants of the same
    priority. ``webhook_url``: told of the task's end. ``metadata``: the client's own, small, given
    back with the task. ``trace``: handed on to the worker. ``held``: its pictures were claimed
    (``BlobClaims.hold``); a task whose claims have run out meanwhile is refused.
    """

    task_id: TaskId
    request: InferenceRequest
    cost: Cost
    tenant: Tenant = DEFAULT_TENANT
    priority: Priority = Priority.NORMAL
    deadline_s: float | None = None
    delay_s: float = 0.0
    weight: float = 1.0
    quota: Quota = UNBOUNDED
    idempotency: Idempotency | None = None
    same: SameAnswer | None = None
    webhook_url: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    held: bool = False
    trace: Trace | None = None


@dataclass(frozen=True, slots=True)
class Enqueued:
    """The queue holds the task.

    ``task_id`` is an earlier task's where the idempotency key was known (``fresh`` is False then).
    ``position``: tasks ahead of it, as an estimate. ``eta_s``: seconds until it is expected to
    start, from measured token rates; None while nothing has been measured.
    """

    task_id: TaskId
    position: int
    eta_s: float | None = None
    fresh: bool = True
    reuse: Reuse | None = None


@dataclass(frozen=True, slots=True)
class TaskError:
    """Why a task has no answer; ``code`` is one of ``forebay.core.errors``."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class PastAttempt:
    """A delivery that came to nothing. Times as in ``TaskRecord``; ``why``: a word or a clause.

    ``attempt``: which delivery it was; one that was released does not count, and so comes again.
    """

    attempt: int
    worker: str
    why: str
    returned_s: float
    leased_s: float | None = None
    encoding_s: float | None = None
    prefill_s: float | None = None
    decode_s: float | None = None


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """What the queue knows of a task. Times are seconds since the epoch, by the queue's clock.

    ``others``: the answers after the first, where several were asked for. ``worker``: who has, or
    last had, it in hand; ``cost``: its priced tokens; ``past``: earlier deliveries, the last few.
    ``group``: ``CANARY`` where a canary has it or has answered it; ``STABLE`` where one had it in
    vain; else None.
    """

    task_id: TaskId
    state: State
    model: str
    tenant: Tenant
    priority: Priority
    created_s: float
    leased_s: float | None = None
    finished_s: float | None = None
    deliveries: int = 0
    text: str | None = None
    finish_reason: str | None = None
    usage: Usage | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    others: tuple[Choice, ...] = ()
    error: TaskError | None = None
    position: int | None = None  # tasks ahead, as an estimate; None unless the task waits
    eta_s: float | None = None  # seconds until it is expected to start; None unless it waits
    encoding_s: float | None = None
    prefill_s: float | None = None
    decode_s: float | None = None
    reuse: Reuse | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    worker: str | None = None
    cost: int = 0
    past: tuple[PastAttempt, ...] = ()
    group: groups.Group | None = None


@dataclass(frozen=True, slots=True)
class Glimpse:
    """Where a task stands, and nothing of what it holds. The latter two as in ``TaskRecord``."""

    state: State
    position: int | None = None
    eta_s: float | None = None


@dataclass(frozen=True, slots=True)
class Lease:
    """A task in a worker's hands until the lease expires or is renewed by a heartbeat.

    ``age_s``: how long ago it arrived, by the queue's clock. ``waited_s``: for how long it waited
    for this lease; less than its age where it came back from another worker.
    """

    task_id: TaskId
    fence: Fence
    request: InferenceRequest
    cost_total: int
    deliveries: int
    terms: Terms = field(default_factory=Terms)
    age_s: float = 0.0
    waited_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a leased task: an answer (``text``, and ``others``) or an ``error``."""

    task_id: TaskId
    fence: Fence
    text: str = ""
    finish_reason: str = "stop"
    usage: Usage | None = None
    error: TaskError | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    others: tuple[Choice, ...] = ()


@dataclass(frozen=True, slots=True)
class HeartbeatReply:
    """What a worker must drop: leases that are no longer its own, and tasks to abort."""

    lost: frozenset[TaskId] = frozenset()
    cancelled: frozenset[TaskId] = frozenset()


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """Size of the queue now. ``oldest_s``: age of the longest-waiting task, 0 when empty.

    ``delayed``: of the waiting ones, those that must not start yet. ``drained``: nothing is given
    out. ``wait_s`` and ``eta_error_s``: how long tasks waited for their first lease, and by how
    much the time told at the door was wrong, both means that fade within minutes;
    ``tokens_per_s``: the cost that is answered in a second of work; None while nothing was
    measured. ``ended``: tasks that workers have answered or failed since the queue was made.
    """

    waiting: int
    leased: int
    dead: int
    waiting_tokens: int
    oldest_s: float = 0.0
    delayed: int = 0
    drained: bool = False
    wait_s: float | None = None
    eta_error_s: float | None = None
    tokens_per_s: float | None = None
    ended: int = 0


class StreamKind(StrEnum):
    """What an entry of a token stream says. The last three end the stream."""

    DELTA = "delta"
    RESTART = "restart"
    DONE = "done"
    ERROR = "error"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """Whether nothing follows."""
        return self in (StreamKind.DONE, StreamKind.ERROR, StreamKind.CANCELLED)


@dataclass(frozen=True, slots=True)
class StreamEntry:
    """One entry as a reader gets it. The terminal ones are written with the result itself.

    ``text`` is the first answer's, and ``others`` has what is new of those after it. ``fields`` of
    ``DONE``: ``finish_reasons`` (of each answer) and ``usage`` (the form of ``Usage.to_dict``, or
    None); of ``ERROR`` and ``CANCELLED``: ``code`` and ``message``. ``RESTART``: the text so far
    is void, a new delivery starts over.
    """

    stream_id: StreamId
    kind: StreamKind
    text: str = ""
    tokens: int = 0
    fields: Mapping[str, Any] = field(default_factory=dict)
    logprobs: tuple[TokenLogprob, ...] = ()
    others: tuple[Piece, ...] = ()

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """What is new of each answer; the first one's may be empty."""
        return (Piece(0, self.text, self.logprobs), *self.others)


@dataclass(frozen=True, slots=True)
class StreamWrite:
    """New text of one leased task, to be appended if ``fence`` is still the current one.

    ``text`` is the first answer's. One write a task in a call: a second one would be taken for a
    repetition of the first. ``phases``: states that the task has entered since the last write,
    each with the seconds since; a write may have nothing else.
    """

    task_id: TaskId
    fence: Fence
    text: str = ""
    tokens: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()
    others: tuple[Piece, ...] = ()
    phases: tuple[tuple[State, float], ...] = ()


class Submitter(Protocol):
    """The door's side of the queue."""

    async def enqueue(self, task: NewTask) -> Enqueued:
        """Keep the task; or return the one that its idempotency key names.

        Raises:
            QueueFullError, TenantOverQuotaError, RateLimitedError: nothing is kept; each says when
                to come again.
            IdempotencyConflictError: the key was used for something else.
            PicturesNotHeldError: its pictures may have been swept; store them again.
            QueueUnavailableError: a server that did not answer in time may still have taken the
                task; it then runs unseen, unless it is sent again under its idempotency key.
        """
        ...

    async def replayed(self, tenant: Tenant, idempotency: Idempotency) -> Enqueued | None:
        """Return the task that this key names, as ``enqueue`` would, or None.

        What is there is told whatever the queue's state is, and before pictures are stored.

        Raises:
            IdempotencyConflictError: the key was used for something else.
            QueueUnavailableError.
        """
        ...

    async def get(self, task_id: TaskId) -> TaskRecord | None:
        """Return what is known of a task, or None when it is unknown or expired."""
        ...

    async def glance(self, task_ids: Sequence[TaskId]) -> dict[TaskId, Glimpse]:
        """Return where each task stands, in one call for all; unknown ones are left out."""
        ...

    async def cancel(self, task_id: TaskId) -> bool:
        """Ask for a task's end; False when it is unknown or already final."""
        ...

    async def depth(self) -> QueueDepth:
        """Return the queue's size."""
        ...

    async def workers(self) -> int:
        """Return how many workers have sent a sign of life lately."""
        ...

    async def ping(self) -> None:
        """Raise QueueUnavailableError unless the server answers."""
        ...


class LeaseHolder(Protocol):
    """The worker's side of the queue."""

    async def claim(
        self,
        worker: str,
        limit: int,
        free_tokens: int,
        held: Sequence[TaskId] = (),
        *,
        group: groups.Group = groups.Group.STABLE,
    ) -> list[Lease]:
        """Lease up to ``limit`` tasks whose costs fit ``free_tokens``; an idle worker gets one.

        ``held``: what the worker holds now. A task whose worker died is given to one that holds
        nothing, and then comes alone. ``group``: a canary gets no more than its share.
        """
        ...

    async def wait_for_work(self, timeout_s: float) -> None:
        """Return when a task may be waiting, or after ``timeout_s``.

        For a worker whose last claim gave it nothing: others are not told of new work.
        """
        ...

    async def heartbeat(
        self,
        worker: str,
        leases: Sequence[tuple[TaskId, Fence]],
        *,
        serving: bool = True,
        group: groups.Group = groups.Group.STABLE,
    ) -> HeartbeatReply:
        """Renew leases, and say that the worker lives; ``serving``: whether it can answer."""
        ...

    async def finish(self, outcomes: Sequence[Outcome]) -> list[TaskId]:
        """Store results whose fence is current; return the ids that were stored."""
        ...

    async def release(self, leases: Sequence[tuple[TaskId, Fence]]) -> list[TaskId]:
        """Give tasks back to the head of the queue without counting a delivery against them."""
        ...

    async def redeliver(self, leases: Sequence[tuple[TaskId, Fence]], why: str) -> list[TaskId]:
        """Give back tasks whose delivery came to nothing: it counts, and they are suspects now.

        ``why``: for the dead letter that a task becomes after its last delivery; clients read it.
        """
        ...

    async def reap(self, worker: str) -> list[TaskId]:
        """Take back, at once, every lease of a worker that is known to be dead.

        For the supervisor, or for a restarted worker that takes the dead one's name, so that
        nobody waits for leases to run out. Returns the ids taken; the delivery counts.
        """
        ...


class Listing(StrEnum):
    """What an operator may look through. ``SUSPECTS`` wait too, apart; so do ``DELAYED``."""

    WAITING = "waiting"
    DELAYED = "delayed"
    SUSPECTS = "suspects"
    LEASED = "leases"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class TaskPage:
    """A part of a listing; ``cursor`` asks for what follows, and is empty at the end."""

    tasks: tuple[TaskRecord, ...]
    cursor: str = ""


class Group(StrEnum):
    """Where an administrator looks for tasks. Of the last four, which have ended, the last few."""

    QUEUED = "queued"
    DELAYED = "delayed"
    SUSPECT = "suspect"
    RUNNING = "running"
    DEAD = "dead"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class TaskQuery:
    """Which tasks. ``tenant``, ``prefix`` of ids: empty for any. ``before``: where to go on."""

    groups: tuple[Group, ...] = tuple(Group)
    tenant: str = ""
    prefix: str = ""
    before: str = ""
    limit: int = 50


@dataclass(frozen=True, slots=True)
class FoundTasks:
    """Tasks, the newest first, each with its place; ``after``: where the next page goes on.

    ``partial``: there may be tasks that no page has, for of some kinds only the last are looked at.
    """

    tasks: tuple[tuple[int, TaskRecord], ...]
    after: str = ""
    partial: bool = False


@dataclass(frozen=True, slots=True)
class TenantLoad:
    """What of one tenant waits: tasks, and their tokens of cost."""

    waiting: int
    waiting_tokens: int


class Operator(Protocol):
    """The side of those who run the queue. Every method may raise QueueUnavailableError."""

    async def list_tasks(
        self,
        listing: Listing,
        *,
        cursor: str = "",
        limit: int = 100,
        priority: Priority | None = None,
        tenant: Tenant | None = None,
    ) -> TaskPage:
        """Return a page of tasks, without positions; the waiting ones by level, tenant, arrival.

        ``priority`` and ``tenant`` narrow the waiting ones down. Tasks that come and go between
        two pages may be missing, and none comes twice. Raises ValueError for a cursor that is none.
        """
        ...

    async def find(self, query: TaskQuery) -> FoundTasks:
        """Return a page of tasks across tenants, the newest first, in bounded work.

        A page may be short though more follow: ``after`` says so.
        """
        ...

    async def tenants(self) -> dict[Tenant, TenantLoad]:
        """Return every tenant that has waiting tasks."""
        ...

    async def retry(self, task_id: TaskId) -> bool:
        """Send a dead letter back, none of its deliveries counted, to run alone.

        False: it is no dead letter.
        """
        ...

    async def drop(self, task_id: TaskId) -> bool:
        """Forget a dead letter and what it asked for; False: it is none."""
        ...

    async def drain(self, on: bool = True) -> None:
        """Give out no more leases, or do so again. Tasks are taken and finished as ever."""
        ...


class StreamWriter(Protocol):
    """Appends tokens."""

    async def append(
        self, writes: Sequence[StreamWrite], *, nonce: str | None = None
    ) -> set[TaskId]:
        """Append in one round trip; return the ids whose fence was stale (nothing was written).

        After QueueUnavailableError the same writes under the same ``nonce`` may be sent again,
        before any others of these tasks: what the server did take is not written twice.
        """
        ...


class StreamReader(Protocol):
    """Follows token streams: one multiplexed connection a process."""

    def subscribe(
        self, task_id: TaskId, after: StreamId = STREAM_START
    ) -> AbstractAsyncContextManager[AsyncIterator[StreamEntry]]:
        """Follow a task's stream from after ``after``; the iterator ends after a terminal entry."""
        ...


class BlobStore(Protocol):
    """Normalised pictures by the SHA-256 of their bytes.

    ``tenant``: whose task shows the picture; a store that is part of the queue's server keeps it
    beside that task.
    """

    async def put(self, content: bytes, tenant: Tenant = DEFAULT_TENANT) -> str:
        """Store ``content`` whole or not at all, where readers find it; return its SHA-256 in hex.

        Raises StorageFullError or QueueUnavailableError; nothing was kept then.
        """
        ...

    async def settle(self, sha256s: Sequence[str]) -> None:
        """Return when what was put survives what a task in the queue survives.

        Raises StorageFullError or QueueUnavailableError; it may be lost then.
        """
        ...

    async def get(self, sha256: str, tenant: Tenant = DEFAULT_TENANT) -> bytes:
        """Return the bytes, verified. Raises KeyError when they are not there, or are damaged."""
        ...


AsideName = NewType("AsideName", str)
"""``<sha256>.<token>``: a blob that a sweep has set aside until it is known to be needed or not."""


class SweptBlobs(Protocol):
    """A blob store from which somebody must remove what nobody needs.

    A blob set aside is still found by ``get``; a ``put`` of the same bytes stores them anew.
    """

    def old(self, older_than_s: float) -> AsyncGenerator[list[str]]:
        """Yield, in batches, what was not stored (or read) for so long."""
        ...

    def aside(self) -> AsyncGenerator[list[AsideName]]:
        """Yield, in batches, what is set aside: by sweeps under way, or by one that was killed."""
        ...

    async def set_aside(self, sha256: str) -> AsideName | None:
        """Give a blob a name that no ``put`` will ever write; None when it is not there."""
        ...

    async def restore(self, name: AsideName) -> None:
        """Undo ``set_aside``; nothing where somebody else has undone it, or has discarded it."""
        ...

    async def discard(self, name: AsideName) -> None:
        """Remove what was set aside, for good; nothing where it is gone."""
        ...


class BlobClaims(Protocol):
    """Who needs which blob: tasks that have not ended, and requests on their way in."""

    async def hold(self, sha256s: Sequence[str], tenant: Tenant) -> None:
        """Claim blobs for a request on its way in; to be called before they are stored."""
        ...

    async def unneeded(self, sha256s: Sequence[str]) -> set[str]:
        """Return those that nobody needs now."""
        ...
