"""Who takes part in the comparison of queues, and how each one's worker is started.

Every worker is one process. Each has the concurrency that is its default, or a setting that its own
documentation names as the faster one; ``about`` says which.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.peers import PeerMissingError

ENVIRONMENT = "queue"
ROOT = Path(__file__).resolve().parent.parent
_SYSTEMS = "bench.queue_systems"


@dataclass(frozen=True, slots=True)
class Contender:
    """One queue with one way of using it.

    Attributes:
        name: what the report calls it.
        system: the module ``bench.queue_systems.on_<system>``.
        worker: the command of its worker; the first word is a program of its environment.
        tasks: so many are sent and answered in a run: a few seconds' work.
        about: the settings that matter.
        packages: whose versions are recorded.
        environment: variables beside the usual ones.
        transport: ``tcp`` or ``unix``.
        stores: whether answers are kept.
    """

    name: str
    system: str
    worker: tuple[str, ...]
    tasks: int
    about: str
    packages: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    transport: str = "tcp"
    stores: bool = True

    @property
    def ours(self) -> bool:
        """Whether it is Forebay."""
        return self.system == "forebay"

    def python(self, home: Path) -> Path:
        """Return the interpreter of its environment."""
        return Path(sys.executable) if self.ours else environment(home, self.system)

    def command(self, home: Path) -> list[str]:
        """Return the worker's command line."""
        program, *rest = self.worker
        return [str(self.python(home).with_name(program)), *rest]


def environment(home: Path, system: str) -> Path:
    """Return the interpreter of a peer's own environment: their requirements exclude each other."""
    return home / ENVIRONMENT / system / "bin" / "python"


def _ours(name: str, about: str, transport: str = "tcp", **environment: str) -> Contender:
    worker = (Path(sys.executable).name, "-m", _SYSTEMS, "forebay", "work")
    return Contender(
        name,
        "forebay",
        worker,
        20_000,
        about,
        ("redis", "hiredis", "uvloop"),
        environment,
        transport,
    )


OURS, OURS_UNIX, ALONE = "forebay", "forebay-unix", "forebay-queue-alone"
_LEASES = "at most 256 leases"

_CONTENDERS = (
    _ours(OURS, f"the worker, an engine that answers at once, {_LEASES}", QUEUE_CONCURRENCY="256"),
    _ours(OURS_UNIX, "the same over the Unix socket", "unix", QUEUE_CONCURRENCY="256"),
    _ours(
        ALONE,
        "claim and finish in turn, 256 at a time, no worker around",
        QUEUE_ALONE="1",
        QUEUE_CONCURRENCY="256",
    ),
    Contender(
        "saq",
        "saq",
        ("saq", f"{_SYSTEMS}.on_saq.settings"),
        4000,
        "concurrency 10 (default), hiredis",
        ("saq", "redis", "hiredis"),
        {"QUEUE_CONCURRENCY": "10"},
    ),
    Contender(
        "dramatiq",
        "dramatiq",
        ("dramatiq", "--processes", "1", "--threads", "8", f"{_SYSTEMS}.on_dramatiq"),
        5000,
        "8 threads (default), results in Redis",
        ("dramatiq", "redis", "hiredis"),
        {"QUEUE_RESULTS": "1"},
    ),
    Contender(
        "dramatiq-no-results",
        "dramatiq",
        ("dramatiq", "--processes", "1", "--threads", "8", f"{_SYSTEMS}.on_dramatiq"),
        5000,
        "8 threads (default), answers are thrown away",
        ("dramatiq", "redis", "hiredis"),
        {"QUEUE_RESULTS": "0"},
        stores=False,
    ),
    Contender(
        "taskiq",
        "taskiq",
        ("taskiq", "worker", f"{_SYSTEMS}.on_taskiq:broker", "--workers", "1"),
        3000,
        "Redis streams, 100 at once (default)",
        ("taskiq", "taskiq-redis", "redis", "hiredis"),
    ),
    Contender(
        "taskiq-list",
        "taskiq",
        ("taskiq", "worker", f"{_SYSTEMS}.on_taskiq:broker", "--workers", "1"),
        3000,
        "a Redis list without acknowledgement, 100 at once (default)",
        ("taskiq", "taskiq-redis", "redis", "hiredis"),
        {"QUEUE_BROKER": "list"},
    ),
    Contender(
        "streaq",
        "streaq",
        ("streaq", "run", f"{_SYSTEMS}.on_streaq:worker"),
        2000,
        "concurrency 16 (default)",
        ("streaq", "coredis"),
        {"QUEUE_CONCURRENCY": "16"},
    ),
    Contender(
        "arq",
        "arq",
        ("arq", f"{_SYSTEMS}.on_arq.WorkerSettings"),
        2000,
        "100 jobs at once, asks every 10 ms (default: 10, and 500 ms)",
        ("arq", "redis", "hiredis"),
        {"QUEUE_CONCURRENCY": "100"},
    ),
    Contender(
        "rq",
        "rq",
        ("rq", "worker", "--worker-class", "rq.SimpleWorker", "--quiet"),
        1000,
        "SimpleWorker: no fork for every task",
        ("rq", "redis", "hiredis"),
    ),
    Contender(
        "celery",
        "celery",
        (
            *("celery", "-A", f"{_SYSTEMS}.on_celery", "worker", "--pool", "solo"),
            *("--without-gossip", "--without-mingle", "--without-heartbeat"),
        ),
        2000,
        "one process (pool solo), no gossip, mingle and heartbeat",
        ("celery", "kombu", "redis", "hiredis"),
    ),
    Contender(
        "docket",
        "docket",
        (
            *("docket", "worker", "--docket", "bench", "--tasks", f"{_SYSTEMS}.on_docket:tasks"),
            *("--concurrency", "10"),
        ),
        1000,
        "concurrency 10 (default)",
        ("pydocket", "redis", "hiredis"),
    ),
)

CONTENDERS: Mapping[str, Contender] = {one.name: one for one in _CONTENDERS}
PEERS = tuple(name for name, one in CONTENDERS.items() if not one.ours)


def contenders(peers: Sequence[str], home: Path) -> list[Contender]:
    """Return ours and the named peers.

    Raises:
        PeerMissingError: a peer is unknown, or the peers' environment is not there.
    """
    for name in peers:
        if name not in PEERS:
            raise PeerMissingError(f"no such peer: {name!r}; known: {', '.join(PEERS)}")
    lacking = {CONTENDERS[name].system for name in peers}
    lacking = {one for one in lacking if not environment(home, one).is_file()}
    if lacking:
        raise PeerMissingError(
            f"not installed under {home / ENVIRONMENT}: {', '.join(sorted(lacking))}. "
            f"Install with: make peers ARGS='{ENVIRONMENT}', or name another folder."
        )
    return [one for name, one in CONTENDERS.items() if one.ours or name in peers]
