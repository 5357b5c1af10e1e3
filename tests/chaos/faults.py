"""The faults: which, when and how hard, by a seed alone; and how each is done and undone."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from tests.chaos.proxy import BOTH, FAIR, Link, Proxy, Way, Weather
from tests.chaos.stack import Stack

CLOCK_BOUND_S = 900
"""How far the clock may be from the truth, so that results kept for hours are there at the end."""

VICTIM_S = 20.0
"""How long a fault waits for a process that it can strike."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. ``at``: the share of tasks that have ended when it begins.

    ``strength`` and ``which`` are from 0 to 1; what they mean is the kind's own business.
    """

    number: int
    at: float
    kind: str
    target: str
    seconds: float
    strength: float
    which: float

    def __str__(self) -> str:
        return f"#{self.number} {self.kind} {self.target} for {self.seconds:.1f} s"


Strike = Callable[[Stack, Fault], AbstractAsyncContextManager[bool]]
"""Entered it is done, left it is undone; True where there was something to strike."""


@dataclass(frozen=True, slots=True)
class Kind:
    """How a fault is done, whom it may strike, and for how long (the shortest, the longest).

    Faults of one ``family`` follow each other: the end of one must not be the end of another.
    """

    family: str
    strike: Strike
    targets: Sequence[str]
    seconds: tuple[float, float]


def plan(seed: int, count: int, kinds: Mapping[str, Kind]) -> list[Fault]:
    """Return ``count`` faults in order: every kind on every target before any comes again."""
    chance = random.Random(seed)
    deck: list[tuple[str, str]] = []
    faults = []
    for number in range(count):
        if not deck:
            deck = _deck(kinds, chance)
        name, target = deck.pop()
        shortest, longest = kinds[name].seconds
        faults.append(
            Fault(
                number=number,
                at=(number + chance.random()) / count * 0.97,
                kind=name,
                target=target,
                seconds=round(chance.uniform(shortest, longest), 2),
                strength=round(chance.random(), 3),
                which=round(chance.random(), 3),
            )
        )
    return faults


def _deck(kinds: Mapping[str, Kind], chance: random.Random) -> list[tuple[str, str]]:
    """Return every pair of kind and target once, so that the kinds take turns."""
    left = {
        name: chance.sample(list(kind.targets), len(kind.targets)) for name, kind in kinds.items()
    }
    deck: list[tuple[str, str]] = []
    while left:
        for name in chance.sample(sorted(left), len(left)):
            deck.append((name, left[name].pop()))
            if not left[name]:
                del left[name]
    return deck[::-1]


def _proxies(stack: Stack, target: str) -> list[Proxy]:
    return list(stack.proxies.values()) if target == "both" else [stack.proxies[target]]


def _weather(make: Callable[[Fault], Weather], *, for_some: bool = False) -> Strike:
    """Return a fault that is a change of weather.

    ``for_some``: of some of the present links alone, at least one.
    """

    @asynccontextmanager
    async def strike(stack: Stack, fault: Fault) -> AsyncIterator[bool]:
        proxies = _proxies(stack, fault.target)
        struck = {proxy: _some(proxy, fault) if for_some else None for proxy in proxies}
        for proxy, links in struck.items():
            proxy.change(make(fault), some=links)
        try:
            yield any(proxy.links for proxy in proxies)
        finally:
            for proxy, links in struck.items():
                proxy.change(FAIR, some=links)

    return strike


def _some(proxy: Proxy, fault: Fault) -> Callable[[], list[Link]]:
    links = sorted(proxy.links, key=lambda link: link.number)
    count = max(1, round(len(links) * fault.which))
    chosen = random.Random(fault.number).sample(links, min(count, len(links)))
    return lambda: chosen


def _signal(first: signal.Signals, then: signal.Signals | None = None) -> Strike:
    """Return a fault that is a signal to a process, and another when it is over."""

    @asynccontextmanager
    async def strike(stack: Stack, fault: Fault) -> AsyncIterator[bool]:
        pid = await _send_to_someone(stack, fault, first)
        try:
            yield pid is not None
        finally:
            if then is not None and pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    stack.signal_pid(pid, then)

    return strike


async def _send_to_someone(stack: Stack, fault: Fault, number: signal.Signals) -> int | None:
    """Send a signal; a part that is just being started again is waited for."""
    clock = asyncio.get_running_loop().time
    until = clock() + VICTIM_S
    while True:
        lame_s = fault.seconds * fault.strength
        pid = stack.send(fault.target, round(fault.which * 1000), number, lame_s)
        if pid is not None or clock() > until:
            return pid
        await asyncio.sleep(0.05)


@asynccontextmanager
async def _cut(stack: Stack, fault: Fault) -> AsyncIterator[bool]:
    proxies = _proxies(stack, fault.target)
    any_there = any(proxy.links for proxy in proxies)
    for proxy in proxies:
        proxy.cut(_some(proxy, fault)() if fault.strength < 0.5 else proxy.links)
    yield any_there


@asynccontextmanager
async def _client_kill(stack: Stack, fault: Fault) -> AsyncIterator[bool]:
    killed = await stack.tell("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    yield killed is not None


@asynccontextmanager
async def _functions_lost(stack: Stack, fault: Fault) -> AsyncIterator[bool]:
    yield await stack.tell("FUNCTION", "FLUSH") is not None


@asynccontextmanager
async def _full_memory(stack: Stack, fault: Fault) -> AsyncIterator[bool]:
    before = await stack.tell("CONFIG", "GET", "maxmemory")
    done = before is not None and await stack.tell("CONFIG", "SET", "maxmemory", "1mb") is not None
    try:
        yield done
    finally:
        if done:
            await stack.insist("CONFIG", "SET", "maxmemory", before["maxmemory"])


@asynccontextmanager
async def _full_disk(stack: Stack, fault: Fault) -> AsyncIterator[bool]:
    doors = stack.groups[fault.target]
    for door in doors:
        door.limit_files(0)
    try:
        yield bool(doors)
    finally:
        for door in doors:
            door.limit_files(None)


def _clock(sign: int) -> Strike:
    @asynccontextmanager
    async def strike(stack: Stack, fault: Fault) -> AsyncIterator[bool]:
        assert stack.valkey is not None
        jump = sign * round(2 + fault.strength**3 * 600)  # most are small, some are minutes
        stack.clock_s = max(-CLOCK_BOUND_S, min(CLOCK_BOUND_S, stack.clock_s + jump))
        stack.valkey.jump_to(stack.clock_s)
        yield True

    return strike


NETWORK: Mapping[str, Kind] = {
    "delay": Kind(
        "network",
        _weather(lambda fault: Weather(delay_s=0.02 + 0.4 * fault.strength)),
        ("api", "worker", "both"),
        (0.5, 3.0),
    ),
    "jitter": Kind(
        "network",
        _weather(lambda fault: Weather(jitter_s=0.05 + 0.4 * fault.strength)),
        ("api", "worker", "both"),
        (0.5, 3.0),
    ),
    "slow": Kind(
        "network",
        _weather(lambda fault: Weather(bytes_per_s=2_000 + 60_000 * fault.strength)),
        ("api", "worker", "both"),
        (0.5, 3.0),
    ),
    "cut": Kind("network", _cut, ("api", "worker", "both"), (0.0, 0.5)),
    "cut_in_reply": Kind(
        "network",
        _weather(
            lambda fault: Weather(cut_reply_after=round(fault.strength**2 * 60)), for_some=True
        ),
        ("api", "worker", "both"),
        (0.2, 1.5),
    ),
    "half_open": Kind(
        "network",
        _weather(lambda fault: Weather(swallowed=BOTH)),
        ("api", "worker", "both"),
        (0.5, 5.0),
    ),
    "half_open_some": Kind(
        "network",
        _weather(lambda fault: Weather(swallowed=BOTH), for_some=True),
        ("api", "worker"),
        (0.5, 6.0),
    ),
    "replies_lost": Kind(
        "network",
        _weather(lambda fault: Weather(swallowed=frozenset({Way.DOWN})), for_some=True),
        ("api", "worker", "both"),
        (0.5, 4.0),
    ),
    "stalled": Kind(
        "network",
        _weather(lambda fault: Weather(stalled=True)),
        ("api", "worker", "both"),
        (0.5, 5.0),
    ),
    "refused": Kind(
        "network",
        _weather(lambda fault: Weather(refusing=True)),
        ("api", "worker", "both"),
        (0.5, 3.0),
    ),
}

PROCESSES: Mapping[str, Kind] = {
    "kill": Kind("process", _signal(signal.SIGKILL), ("api", "worker", "valkey"), (0.0, 4.0)),
    "stop": Kind(
        "process", _signal(signal.SIGSTOP, signal.SIGCONT), ("api", "worker", "valkey"), (0.5, 5.0)
    ),
}

SERVER: Mapping[str, Kind] = {
    "client_kill": Kind("server", _client_kill, ("valkey",), (0.0, 0.5)),
    "functions_lost": Kind("server", _functions_lost, ("valkey",), (0.0, 0.5)),
    "full_memory": Kind("server", _full_memory, ("valkey",), (0.5, 3.0)),
}

DISK: Mapping[str, Kind] = {"full_disk": Kind("disk", _full_disk, ("api",), (0.5, 3.0))}

CLOCK: Mapping[str, Kind] = {
    "clock_forward": Kind("clock", _clock(+1), ("valkey",), (0.0, 0.5)),
    "clock_back": Kind("clock", _clock(-1), ("valkey",), (0.0, 0.5)),
}

SUPERVISOR: Mapping[str, Kind] = {
    "kill": Kind(
        "process", _signal(signal.SIGKILL), ("api", "worker", "valkey", "supervisor"), (0.0, 4.0)
    ),
    "stop": Kind(
        "process",
        _signal(signal.SIGSTOP, signal.SIGCONT),
        ("api", "worker", "valkey", "supervisor"),
        (0.5, 5.0),
    ),
}


def kinds_in_parts(*, clock: bool) -> dict[str, Kind]:
    """Return what can strike a stack in parts."""
    return {**NETWORK, **PROCESSES, **SERVER, **DISK, **(CLOCK if clock else {})}


def kinds_as_one() -> dict[str, Kind]:
    """Return what can strike ``forebay serve`` with its private queue server."""
    return {**SUPERVISOR, **SERVER}


async def strike(
    stack: Stack, fault: Fault, kinds: Mapping[str, Kind], told: Callable[[str], None]
) -> bool:
    """Do one fault, hold it for its time, undo it. Returns whether there was anything to strike."""
    async with kinds[fault.kind].strike(stack, fault) as done:
        told(f"{fault}{'' if done else ' (nobody there)'}")
        await asyncio.sleep(fault.seconds if done else 0)
    return done
