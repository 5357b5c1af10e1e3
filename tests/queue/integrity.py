"""Recomputes every counter and index of a queue from the hashes of its tasks, and compares."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from redis.asyncio import Redis

from forebay.core.lifecycle import State
from forebay.queue.schema import KEY_NAMES, Keys

ENDS: Final = {
    State.FINISHED: "done",
    State.FAILED: "error",
    State.EXPIRED: "error",
    State.DEAD: "error",
    State.CANCELLED: "cancelled",
}
_READ: Final[dict[str, Callable[[Any, str], Any]]] = {
    **dict.fromkeys(
        (
            *("line", "ring", "suspects", "leases", "deadlines", "delayed", "dead", "workers"),
            *("followers", "holds", "hooks", "hook_hosts", "hook_line"),
        ),
        lambda pipe, key: pipe.zrange(key, 0, -1, withscores=True),
    ),
    **dict.fromkeys(("solo", "held"), lambda pipe, key: pipe.smembers(key)),
    **dict.fromkeys(
        ("meta", "task", "tenants", "blobs", "hook"), lambda pipe, key: pipe.hgetall(key)
    ),
    **dict.fromkeys(("idem", "same"), lambda pipe, key: pipe.get(key)),
    "stream": lambda pipe, key: pipe.xrevrange(key, count=1),
}
_ZSETS: Final = tuple(kind for kind, read in _READ.items() if read is _READ["line"])


@dataclass(slots=True)
class Kept:
    """All that a server keeps of a queue. ``of``: kind of key -> the rest of its name -> content.

    ``ttl_ms`` has every key that there is, by kind and rest; -1: it has no end.
    """

    of: dict[str, dict[str, Any]] = field(default_factory=lambda: defaultdict(dict))
    ttl_ms: dict[tuple[str, str], int] = field(default_factory=dict)

    @property
    def tasks(self) -> dict[str, dict[str, str]]:
        return self.of["task"]

    def one(self, kind: str) -> dict[str, Any]:
        """Return the content of a kind that has one key."""
        found: dict[str, Any] = self.of[kind].get("", {})
        return found

    def having(self, *states: State) -> dict[str, dict[str, str]]:
        return {name: t for name, t in self.tasks.items() if t["state"] in states}

    @property
    def waiting(self) -> dict[str, dict[str, str]]:
        return self.having(State.QUEUED)

    @property
    def held(self) -> dict[str, dict[str, str]]:
        return self.having(*(state for state in State if state.held))

    @property
    def ended(self) -> dict[str, dict[str, str]]:
        return self.having(*ENDS)


async def look(redis: Redis, keys: Keys) -> Kept:
    """Read everything. What changes meanwhile may be seen half."""
    names = [name async for name in redis.scan_iter(match=keys.prefix + "*", count=1000)]
    kinds = [keys.kind(name) for name in names]
    async with redis.pipeline(transaction=True) as pipe:
        for name, kind in zip(names, kinds, strict=True):
            pipe.pttl(name)
            _READ.get(kind, lambda pipe, name: pipe.exists(name))(pipe, name)
        told = await pipe.execute()
    kept = Kept()
    for at, (name, kind) in enumerate(zip(names, kinds, strict=True)):
        rest = name.removeprefix(keys.prefix + KEY_NAMES[kind])
        ttl_ms, content = told[2 * at : 2 * at + 2]
        if ttl_ms != -2:  # it has expired meanwhile
            kept.ttl_ms[kind, rest] = ttl_ms
            kept.of[kind][rest] = dict(content) if kind in _ZSETS else content
    return kept


async def check_integrity(redis: Redis, keys: Keys) -> list[str]:
    """Return what does not agree with what, in sentences; none in a queue that is sound."""
    kept = await look(redis, keys)
    checks = (_places, _members, _deadlines, _held, _counters, _tenants, _turns, _followers)
    also = (_pointers, _keys_of_clients, _pictures, _webhooks, _lives)
    return [fault for check in (*checks, *also) for fault in check(kept)]


def _places(kept: Kept) -> Iterator[str]:
    """A task that waits stands in one place, one that is held is leased, the others are nowhere."""
    leased = kept.one("leases")
    for name, t in kept.tasks.items():
        line = kept.of["line"].get(f"{t['priority']}:{t['tenant']}", {})
        standing = {
            "its line": name in line,
            "suspects": name in kept.one("suspects"),
            "delayed": name in kept.one("delayed"),
            "followers": name in kept.of["followers"].get(t.get("leader", ""), {}),
        }
        found = [place for place, there in standing.items() if there]
        if len(found) != (t["state"] == State.QUEUED):
            yield f"{name} is {t['state']} and stands in {found}"
        if (name in leased) is not State(t["state"]).held:
            yield f"{name} is {t['state']}, leased: {name in leased}"
        if (name in kept.one("dead")) is not (t["state"] == State.DEAD):
            yield f"{name} is {t['state']}, in dead: {name in kept.one('dead')}"


def _members(kept: Kept) -> Iterator[str]:
    """Whatever an index names is there, and stands in the place that the hash tells."""
    for kind in ("line", "suspects", "leases", "delayed", "dead", "followers", "deadlines"):
        for rest, members in kept.of[kind].items():
            for name, score in members.items():
                t = kept.tasks.get(name)
                if t is None:
                    yield f"{kind}:{rest} names {name}, which is not there"
                elif kind == "line" and rest != f"{t['priority']}:{t['tenant']}":
                    yield f"{name} of {t['priority']}:{t['tenant']} stands in the line {rest}"
                elif kind in ("line", "suspects", "followers") and score != float(t["seq"]):
                    yield f"{name} with seq {t['seq']} stands in {kind}:{rest} at {score}"


def _deadlines(kept: Kept) -> Iterator[str]:
    due = {name: float(t["deadline"]) for name, t in kept.waiting.items() if "deadline" in t}
    if due != kept.one("deadlines"):
        yield f"deadlines: {kept.one('deadlines')}, of the waiting: {due}"


def _held(kept: Kept) -> Iterator[str]:
    by_worker: defaultdict[str, set[str]] = defaultdict(set)
    for name, t in kept.held.items():
        by_worker[t["worker"]].add(name)
    for worker in by_worker.keys() | kept.of["held"].keys():
        # a task whose hash was deleted by hand is taken out when someone counts
        told = kept.of["held"].get(worker, set()) & kept.tasks.keys()
        if by_worker[worker] != told:
            yield f"the worker {worker} holds {by_worker[worker]}, its set says {told}"
    solo = set(kept.one("solo"))
    if not solo <= kept.held.keys():
        yield f"solo has {solo - kept.held.keys()}, which nobody holds"


def _counters(kept: Kept) -> Iterator[str]:
    counted = _in_lines(kept)
    for line in kept.of["line"].values():
        counted |= line.keys()
    costs = {name: int(t["cost"]) for name, t in kept.tasks.items()}
    levels = Counter[str]()
    for rest, line in kept.of["line"].items():
        levels[f"waiting:{rest.partition(':')[0]}"] += len(line)
    truth = {
        "tasks": len(counted),
        "tokens": sum(costs[name] for name in counted if name in costs),
        "leases": len(kept.one("leases")),
        "running": sum(costs[name] for name in kept.held),
        **{f"waiting:{level}": levels[f"waiting:{level}"] for level in range(10)},
    }
    meta = kept.one("meta")
    for name, value in truth.items():
        if float(meta.get(name, 0)) != value:
            yield f"{name} is {meta.get(name)}, and should be {value}"
    if float(meta.get("credit", 0)) < 0:
        yield f"credit is {meta['credit']}"


def _in_lines(kept: Kept) -> set[str]:
    """Return who waits elsewhere than in a line, and counts all the same."""
    return set(kept.one("suspects")) | set(kept.one("delayed"))


def _tenants(kept: Kept) -> Iterator[str]:
    truth: Counter[str] = Counter()
    for name, t in kept.waiting.items():
        if name not in kept.of["followers"].get(t.get("leader", ""), {}):
            truth[f"n:{t['tenant']}"] += 1
            truth[f"c:{t['tenant']}"] += int(t["cost"])
    told = {name: int(value) for name, value in kept.one("tenants").items()}
    if told != dict(truth):
        yield f"tenants: {told}, and should be {dict(truth)}"


def _turns(kept: Kept) -> Iterator[str]:
    levels: defaultdict[str, set[str]] = defaultdict(set)
    for rest in kept.of["line"]:
        level, _, tenant = rest.partition(":")
        levels[level].add(tenant)
    for level in levels.keys() | kept.of["ring"].keys():
        ring = kept.of["ring"].get(level, {}).keys()
        if not levels[level] <= ring:
            yield f"no turn at level {level} for {levels[level] - ring}"
        if ring and not levels[level]:
            yield f"nobody waits at level {level}, and {set(ring)} have turns"


def _followers(kept: Kept) -> Iterator[str]:
    for leader, members in kept.of["followers"].items():
        state = kept.tasks.get(leader, {}).get("state")
        if state is None or State(state).final:
            yield f"{set(members)} follow {leader}, which is {state}"
        for name in members:
            if (told := kept.tasks.get(name, {}).get("leader")) != leader:
                yield f"{name} is among the followers of {leader}, its hash says {told}"


def _pointers(kept: Kept) -> Iterator[str]:
    for digest, name in kept.of["same"].items():
        t, ttl_ms = kept.tasks.get(name), kept.ttl_ms["same", digest]
        if t is None or t.get("same") != digest:
            yield f"same:{digest} names {name}, which is {t}"
        elif ttl_ms == -1 and State(t["state"]).final:
            yield f"same:{digest} names {name} for ever, which is {t['state']}"
        elif ttl_ms != -1 and t["state"] != State.FINISHED:
            yield f"same:{digest} expires, and {name} is {t['state']}"


def _keys_of_clients(kept: Kept) -> Iterator[str]:
    for rest, value in kept.of["idem"].items():
        name = value.partition(" ")[0]
        t, ttl_ms = kept.tasks.get(name), kept.ttl_ms["idem", rest]
        if t is None or f"{t['tenant']}:{t.get('idem')}" != rest:
            yield f"idem:{rest} names {name}, which is {t}"
        elif (ttl_ms == -1) is State(t["state"]).final:
            yield f"idem:{rest} has {ttl_ms} ms, and {name} is {t['state']}"


def _pictures(kept: Kept) -> Iterator[str]:
    needed: Counter[str] = Counter()
    for t in kept.tasks.values():
        if not State(t["state"]).final or t["state"] == State.DEAD:
            needed.update(t.get("pictures", "").split())
    told = {sha256: int(count) for sha256, count in kept.one("blobs").items()}
    if told != dict(needed):
        yield f"blobs: {told}, and should be {dict(needed)}"
    for sha256 in kept.of["blob"]:
        if (kept.ttl_ms["blob", sha256] == -1) is not (sha256 in needed):
            yield f"blob:{sha256} has {kept.ttl_ms['blob', sha256]} ms, needed: {needed[sha256]}"


def _webhooks(kept: Kept) -> Iterator[str]:
    due: dict[str, float] = {}
    for host, line in kept.of["hook_line"].items():
        due |= line
        if kept.one("hook_hosts").get(host) != min(line.values()):
            yield f"{host} is due at {kept.one('hook_hosts').get(host)}, its line says {line}"
    if due != kept.one("hooks"):
        yield f"hooks: {kept.one('hooks')}, in lines: {due}"
    if lone := kept.one("hook_hosts").keys() - kept.of["hook_line"].keys():
        yield f"receivers without a line: {lone}"
    if due.keys() != kept.of["hook"].keys():
        yield f"webhooks of {set(due)}, kept: {set(kept.of['hook'])}"


def _lives(kept: Kept) -> Iterator[str]:
    """What is kept of a task ends when it should, and its stream ends as the task did."""
    for name, t in kept.tasks.items():
        state = State(t["state"])
        has_body = not state.final or state in (State.FINISHED, State.DEAD)
        if (name in kept.of["body"]) is not has_body:
            yield f"{name} is {state}, its body is there: {not has_body}"
        for kind in ("task", "body"):
            ttl_ms = kept.ttl_ms.get((kind, name))
            if ttl_ms is not None and (ttl_ms == -1) is state.final:
                yield f"{kind} of {name}, which is {state}, has {ttl_ms} ms"
        stream = kept.of["stream"].get(name)
        last = stream[0][1]["k"] if stream else None
        if state.final and last != ENDS[state]:
            yield f"{name} is {state}, its stream ends with {last}"
        if not state.final and last in ENDS.values():
            yield f"{name} is {state}, its stream has ended with {last}"
