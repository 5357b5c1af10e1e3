"""Every key of the queue and every time to live, in one place; the Lua library is given the names.

All keys of a queue share one hash tag, ``{fb:<name>}``, so a cluster keeps them on one node.
"""

from __future__ import annotations

from dataclasses import dataclass

from forebay.core.request import TaskId

KEY_NAMES: dict[str, str] = {
    "meta": "meta",  # HASH: counters of what waits and runs, turns of the levels, measured rates
    "task": "t:",  # HASH per task: state, tenant, priority, fence, deliveries, result
    "body": "q:",  # STRING per task: its request; from the end on, the answer's text
    "line": "l:",  # ZSET per level and tenant: task -> seq (order of arrival)
    "ring": "ring:",  # ZSET per level: tenant -> virtual time
    "tenants": "tenants",  # HASH: n:<tenant> -> its waiting tasks, c:<tenant> -> their cost
    "suspects": "suspects",  # ZSET: task -> seq; their worker died, so they are delivered alone
    "solo": "solo",  # SET: suspects that are leased now
    "leases": "leases",  # ZSET: task -> time when its lease runs out, ms
    "deadlines": "deadlines",  # ZSET: waiting task -> time after which it must not start, ms
    "delayed": "delayed",  # ZSET: waiting task -> time before which it must not start, ms
    "dead": "dead",  # ZSET: dead letter -> time of death, ms
    "recent": "recent:",  # LIST per end: tasks that ended so lately, the newest first
    "replaced": "replaced",  # HASH: reason -> workers replaced for it
    "workers": "workers",  # ZSET: worker -> last sign of life, ms
    "canaries": "canaries",  # ZSET: the same of workers of the group that runs something new
    "canary_room": "canary_room",  # ZSET: canary that waits for its turn -> until when, ms
    "canary": "canary",  # HASH: since when the trial goes on, what canaries run, the last log entry
    "trial": "trial:",  # HASH per trial and ten seconds: what came of the tasks of each group
    "canary_log": "canary_log",  # STREAM: changes of the canaries' share; the oldest is dropped
    "held": "w:",  # SET per worker: tasks that it has leased
    "claim": "c:",  # STRING per worker: nonce of the last claim that leased something, and what
    "idem": "idem:",  # STRING per tenant and idempotency key: task, digest of what was asked
    "rate": "rate:",  # STRING per tenant: when its next task would be exactly on time, ms
    "same": "same:",  # STRING per digest: the task whose answer equal ones may have
    "followers": "f:",  # ZSET per task: tasks that wait for its answer -> seq
    "blobs": "blobs",  # HASH: SHA-256 of a picture -> tasks that need it
    "holds": "holds",  # ZSET: picture -> until when it is claimed without a task, ms
    "blob": "blob:",  # STRING per picture: its bytes, where they are kept in this server
    "sweeper": "sweeper",  # STRING: somebody has swept pictures in this interval
    "stream": "s:",  # STREAM per task: its tokens
    "wake": "wake",  # STREAM of one entry: its id changes when work arrives
    "hooks": "hooks",  # ZSET: ended task whose webhook is to be delivered -> when it is due, ms
    "hook_hosts": "hookhosts",  # ZSET: receiver -> when the first of its webhooks is due, ms
    "hook_line": "hookline:",  # ZSET per receiver: ended task -> when its webhook is due, ms
    "hook": "hook:",  # HASH per ended task: a copy of its own with the answer, where and how often
    "hook_claim": "hc:",  # STRING per claim that leased something: what it leased
    "hook_log": "hooklog:",  # LIST per task: what became of each attempt
    "file": "file:",  # STRING per file: what is known of it; its content lies in a folder
    "files": "files:",  # ZSET per tenant: file -> when it was made, us
    "batch": "batch:",  # HASH per batch: what was asked, who has it in hand, how far it has come
    "batches": "batches:",  # ZSET per tenant: batch -> when it was made, us
    "batch_live": "batchlive",  # ZSET: batch that has not ended -> when anyone may take it, ms
    "response": "response:",  # STRING per response: the terms that were asked for
    "open": "open:",  # SET per caller with a bound: its tasks that have not ended
    "api_keys": "api_keys",  # ZSET: API key's id -> when it was made, ms (under access's hash tag)
    "api_key": "api_key:",  # HASH per API key: its hash, scopes, tenant, what it may have
    "cell": "cell:",  # STRING per rate or budget of a caller: when its next unit would be on time
    "audit": "audit",  # STREAM: what was done to keys and by administrators; the oldest is dropped
    "alert_leader": "alert_leader",  # STRING: which API process judges alerts
    "alerts": "alerts",  # STRING: the alerts, JSON (under access's hash tag, as all before nudge)
    "alert_log": "alert_log",  # STREAM: changes of alerts; the oldest is dropped
    "alert_reports": "alert_reports",  # HASH: API process -> what it measured last, JSON
    "fleet": "fleet",  # HASH: worker or supervisor -> when it last said how it is, and how, JSON
    "orders": "orders",  # HASH: worker or supervisor -> what an administrator wants of it
    "live_leader": "live_leader",  # STRING: which API process computes the console's figures
    "live_reports": "live_reports",  # HASH: API process -> when and what it counted so far, JSON
    "live_light": "live_light",  # STRING: the traffic light as it is, JSON
    "live": "live",  # STREAM: the figures of each second; the oldest is dropped
    "live_coarse": "live_coarse",  # STREAM: their means over a longer step
    "silences": "silences",  # HASH: silence -> what, until when, why, whose, JSON
    "log_level": "log_level",  # STRING: the log's level at run time, JSON (under access's hash tag)
    "measured": "measured",  # ZSET: process -> until when its metrics are told, ms
    "measure": "measure:",  # STRING per process: its metrics, JSON (under access's hash tag)
    "nudge": "nudge:",  # STREAM per reader process: its id changes when subscriptions do
}

LIVE_KEYS: dict[str, str] = {
    "meta": "counters of the queue; a constant handful of fields",
    "task": "a task that has not ended; the last transition sets its TTL",
    "body": "the request of a task that has not ended",
    "idem": "of a task that has not ended",
    "line": "index of waiting tasks; empty lines vanish by themselves",
    "ring": "turns of the tenants that have, or had a moment ago, waiting tasks",
    "tenants": "counters of the tenants that have waiting tasks; the others have no field",
    "suspects": "index of waiting tasks",
    "solo": "index of leased tasks",
    "leases": "index of leased tasks",
    "deadlines": "index of waiting tasks",
    "delayed": "index of waiting tasks",
    "same": "of a task that has not ended",
    "followers": "of a task that has not ended",
    "blobs": "counters of pictures that tasks need; the others have no field",
    "blob": "a picture that a task needs",
    "wake": "one entry, replaced and never added to",
    "hooks": "index of webhooks to be delivered; bounded, see WEBHOOKS_MOST",
    "hook_hosts": "index of receivers with webhooks to be delivered",
    "hook_line": "index of one receiver's webhooks",
    "batch": "a batch that has not ended; its end sets its TTL",
    "batch_live": "index of batches that have not ended; bounded, see BATCHES_MOST",
    "open": "index of tasks that have not ended",
    "api_keys": "index of API keys; at most MOST_API_KEYS",
    "api_key": "one that does not expire and is not revoked",
    "replaced": "counters; one field for each reason",
    "canary": "a constant handful of fields",
    "audit": "at most about MOST_AUDITED entries",
}
"""The only keys that may lack a TTL, with the reason. Accepted work must not expire unanswered."""

DEAD_TTL_S = 7 * 86_400
"""Dead letters are kept for a week, request included, so that an operator can look and retry."""

STREAM_TTL_S = 6 * 3600
"""A running task's stream, renewed by every entry. The end of the task sets the result's TTL."""

NUDGE_TTL_S = 60
"""A reader's nudge stream, renewed by every nudge; only its newest id matters."""

MOST_API_KEYS = 10_000
"""API keys of one queue, those that were lately revoked or expired included."""

ENDED_KEY_TTL_S = 30 * 86_400
"""A revoked or expired API key is listed for so long."""

MOST_AUDITED = 10_000
"""Entries of the audit stream, about; the log has them all."""

TRIAL_SLOT_S = 10
"""What comes of the tasks of each group of workers is counted apart for each of such times."""

TRIAL_TTL_S = 7200
"""Such a count is kept for so long: longer than anybody looks back."""

CANARY_LOG_TTL_S = 90 * 86_400
"""The log of the canaries' share, from its last entry on."""

MOST_CANARY_LOGGED = 1_000
"""Entries of that log, about."""

BLOB_TTL_S = 86_400
"""Pictures that nobody has needed since are swept."""

SWEEP_EVERY_S = 600
"""Between two sweeps of pictures, whichever processes do them."""

WEBHOOK_TTL_S = 7 * 86_400
"""What a webhook says is kept for so long after its next attempt is due: dispatchers may be away
for a while."""

WEBHOOKS_MOST = 100_000
"""Webhooks of one queue that may wait. Past it the one due last, so mostly the one that failed most
often, is given up, which its log says."""

WEBHOOKS_MOST_PER_HOST = 10_000
"""The same of one receiver, so that one that is away does not cost the others their webhooks."""

WEBHOOK_LOG_MOST = 32
"""Attempts in a task's log."""

BATCH_TTL_S = 30 * 86_400
"""An ended batch's record."""

BATCHES_MOST = 1_000
"""Batches of one queue that have not ended."""

STREAM_BUFFER = 256
"""Entries held for one subscriber before its stream is left unread in the server."""

STREAM_READ_COUNT = 64
"""Entries of one stream in one read."""


def access_name(queue: str) -> str:
    """Return the name under which the keys of those who may come in lie: a hash tag of their own.

    No queue and no partition of one has it.
    """
    return f"{queue}:access"


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of the queue ``name``."""

    name: str = "main"

    def __post_init__(self) -> None:
        """Refuse a name that would break the hash tag. Raises ValueError."""
        if not self.name or any(char in self.name for char in "{} \n"):
            raise ValueError(f"a queue's name has no braces or spaces: {self.name!r}")

    @property
    def prefix(self) -> str:
        """What every key begins with."""
        return f"{{fb:{self.name}}}:"

    @property
    def meta(self) -> str:
        """Counters; also the key by which a cluster routes each call."""
        return self.prefix + KEY_NAMES["meta"]

    @property
    def wake(self) -> str:
        """The hint for idle workers."""
        return self.prefix + KEY_NAMES["wake"]

    def task(self, task_id: TaskId) -> str:
        """What is known of one task."""
        return self.prefix + KEY_NAMES["task"] + task_id

    def body(self, task_id: TaskId) -> str:
        """The request of one task, or its answer."""
        return self.prefix + KEY_NAMES["body"] + task_id

    @property
    def replaced(self) -> str:
        """How many workers were replaced, by reason."""
        return self.prefix + KEY_NAMES["replaced"]

    @property
    def sweeper(self) -> str:
        """The turn to sweep pictures."""
        return self.prefix + KEY_NAMES["sweeper"]

    def blob(self, sha256: str) -> str:
        """The bytes of one picture."""
        return self.prefix + KEY_NAMES["blob"] + sha256

    def stream(self, task_id: TaskId) -> str:
        """The tokens of one task."""
        return self.prefix + KEY_NAMES["stream"] + task_id

    def file(self, file_id: str) -> str:
        """What is known of one file."""
        return self.prefix + KEY_NAMES["file"] + file_id

    def files(self, tenant: str) -> str:
        """The files of one tenant."""
        return self.prefix + KEY_NAMES["files"] + tenant

    def batch(self, batch_id: str) -> str:
        """What is known of one batch."""
        return self.prefix + KEY_NAMES["batch"] + batch_id

    def batches(self, tenant: str) -> str:
        """The batches of one tenant."""
        return self.prefix + KEY_NAMES["batches"] + tenant

    def response(self, response_id: str) -> str:
        """What is kept of one response beside its task."""
        return self.prefix + KEY_NAMES["response"] + response_id

    def webhook_log(self, task_id: TaskId) -> str:
        """What became of each attempt to deliver one task's webhook."""
        return self.prefix + KEY_NAMES["hook_log"] + task_id

    def nudge(self, reader: str) -> str:
        """The nudge stream of one reader process."""
        return self.prefix + KEY_NAMES["nudge"] + reader

    def kind(self, key: str) -> str:
        """Return which entry of ``KEY_NAMES`` a key is. Raises ValueError for an unknown one."""
        rest = key.removeprefix(self.prefix)
        for kind, shape in KEY_NAMES.items():
            if rest == shape or (shape.endswith(":") and rest.startswith(shape)):
                return kind
        raise ValueError(f"not a key of queue {self.name!r}: {key!r}")
