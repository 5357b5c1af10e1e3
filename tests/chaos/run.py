"""One run: start the stack, let clients ask while faults strike, wait for quiet, judge."""

from __future__ import annotations

import asyncio
import itertools
import os
import shlex
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from forebay.core.errors import ForebayError
from tests.chaos.answers import invented
from tests.chaos.checker import Verdict, Violation, check
from tests.chaos.clients import Asking, Client
from tests.chaos.demo import learnt
from tests.chaos.door import PATIENCE, Doors
from tests.chaos.faults import Fault, Kind, kinds_as_one, kinds_in_parts, plan, strike
from tests.chaos.history import Accepted, History, Struck
from tests.chaos.processes import adopt_orphans, end_all, offspring
from tests.chaos.stack import Stack, as_one, in_parts
from tests.chaos.tasks_face import is_offered
from tests.chaos.valkey import find_faketime

QUIET_S = 90.0
"""How long the queue may take to be empty once every task has ended and every fault is over."""

BOOKS_S = 10.0
"""How long what ends by itself may take until the queue's books are compared for the last time."""

ORPHAN_S = 15.0
"""How long a killed process's own children may outlive it."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a run is made of. ``whole``: ``forebay serve``, else each process by itself.
    ``demo``: the demo model answers, else a server whose answers are known beforehand.

    ``impatience_s``: a fault comes after so long even when no task has ended meanwhile.
    ``garble``: have the n-th answer said wrong, to see that it is found.
    """

    tasks: int = 150
    faults: int = 12
    seed: int = 1
    clients: int = 64
    whole: bool = False
    demo: bool = False
    limit_s: float = 0.0
    impatience_s: float = 4.0
    clock: bool = field(default_factory=lambda: find_faketime() is not None)
    garble: int = 0
    settings: Mapping[str, str] = field(default_factory=lambda: {"max_waiting": "40"})

    @property
    def longest_s(self) -> float:
        """The bound of the whole run: as set, else far more than it takes."""
        return self.limit_s or 120 + self.tasks * (4 if self.demo else 0.4) + self.faults * 12

    @property
    def kinds(self) -> dict[str, Kind]:
        return kinds_as_one() if self.whole else kinds_in_parts(clock=self.clock)

    def replay(self) -> str:
        """Return the command that runs the same faults again."""
        words = ["python", "-m", "tests.chaos", "--tasks", self.tasks, "--faults", self.faults]
        words += ["--seed", self.seed, "--clients", self.clients]
        words += [f"--{name}" for name in ("whole", "demo") if getattr(self, name)]
        words += [] if self.clock or self.whole else ["--no-clock"]
        return shlex.join(str(word) for word in words)


@dataclass(slots=True)
class Run:
    """What there is to tell of a run, while it goes and afterwards."""

    options: Options
    history: History = field(default_factory=History)
    with_tasks: bool | None = None
    asking: Asking = invented
    struck: Counter[str] = field(default_factory=Counter)
    begun: int = 0
    missed: int = 0
    ended: int = 0
    lives: Counter[str] = field(default_factory=Counter)
    unasked_ends: Counter[str] = field(default_factory=Counter)
    stopped_by: str = ""
    extra: list[Violation] = field(default_factory=list)
    runs: Mapping[str, int] | None = None
    load_s: float = 0.0
    others: Sequence[psutil.Process] = ()

    def verdict(self) -> Verdict:
        return check(self.history, self.runs)

    def figures(self) -> dict[str, Any]:
        """Return what the JSON file holds."""
        verdict = self.verdict()
        violations = [*verdict.violations, *self.extra]
        return {
            "accepted": verdict.accepted,
            "answered": verdict.answered,
            "cached": verdict.cached,
            "joined": verdict.joined,
            "lost": verdict.count("lost"),
            "doubled": verdict.count("doubled"),
            "gaps": verdict.count("gap"),
            "wrong": verdict.count("wrong"),
            "ghosts": verdict.count("ghost"),
            "failed": dict(verdict.failed),
            "refused": verdict.refused,
            "unsure": verdict.unsure,
            "streams": verdict.streams,
            "resumed": verdict.resumed,
            "restart_events": verdict.restarts,
            "redelivered": sum(n - 1 for n in (self.runs or {}).values() if n > 1),
            "faults": self.struck.total(),
            "faults_by_kind": dict(sorted(self.struck.items())),
            "faults_that_met_nobody": self.missed,
            "restarts": {name: lives - 1 for name, lives in sorted(self.lives.items())},
            "unasked_ends": dict(self.unasked_ends),
            "seconds": round(self.load_s, 1),
            "stopped_by": self.stopped_by,
            "violations": [f"{one.kind}: {one.about} {one.what}" for one in violations[:50]],
            "tasks_api": bool(self.with_tasks),
            "seed": self.options.seed,
            "replay": self.options.replay(),
        }

    @property
    def kept(self) -> bool:
        """Whether every promise was kept, and the run came to its end."""
        return not self.stopped_by and not self.extra and not self.verdict().violations


async def run(
    one: Run,
    folder: Path,
    told: Callable[[str], None],
    meddle: Callable[[Stack, Run], Any] | None = None,
) -> None:
    """Do it all within ``options.longest_s``; leave no process behind, whatever happens.

    ``meddle``: awaited with the stack once all tasks have ended, for tests of those who check.
    """
    adopt_orphans()
    one.others = offspring()  # of whoever runs us: no part of this run
    limit_s = one.options.longest_s
    try:
        async with asyncio.timeout(limit_s):
            await _run(one, folder, told, meddle)
    except TimeoutError:
        one.stopped_by = f"the time limit of {limit_s:.0f} s"
    finally:
        end_all(offspring(but=one.others))


async def _run(
    one: Run, folder: Path, told: Callable[[str], None], meddle: Callable[[Stack, Run], Any] | None
) -> None:
    began = time.monotonic()
    async with _stack(one.options, folder) as stack:
        told(f"ready after {time.monotonic() - began:.1f} s: {one.options.replay()}")
        began = time.monotonic()
        try:
            await _strike_while_asking(one, stack, told)
            told("all tasks have ended and all faults are over; reading every result again")
            if meddle is not None:
                await meddle(stack, one)
            await _settle(one, stack)
        finally:
            one.load_s = time.monotonic() - began
            for process in stack.processes:
                one.lives[process.name] = process.lives
                if process.unasked_ends:
                    one.unasked_ends[process.name] = process.unasked_ends


def _stack(options: Options, folder: Path) -> AbstractAsyncContextManager[Stack]:
    settings = dict(options.settings)
    if options.demo:  # its few questions are asked over and over, and each time it is to answer
        settings["answer_cache_s"] = "0"
    if options.whole:
        return as_one(folder, settings=settings, garble=options.garble, demo=options.demo)
    return in_parts(
        folder,
        seed=options.seed,
        settings=settings,
        garble=options.garble,
        demo=options.demo,
    )


async def _strike_while_asking(one: Run, stack: Stack, told: Callable[[str], None]) -> None:
    """Ask all questions and do all faults."""
    async with asyncio.TaskGroup() as group:
        telling = group.create_task(_tell(one, told))
        async with asyncio.TaskGroup() as work:
            work.create_task(_strike_all(one, stack, told))
            work.create_task(_ask_all(one, stack))
        telling.cancel()


async def _ask_all(one: Run, stack: Stack) -> None:
    numbers = iter(range(one.options.tasks))

    async def ask_on(client: Client) -> None:
        for number in numbers:
            await _until_faults_keep_up(one, number)
            await client.ask(number)
            one.ended += 1

    await _each(one, stack, one.options.clients, ask_on)


async def _until_faults_keep_up(one: Run, number: int) -> None:
    """Hold questions back while faults take their time, so that every fault meets some."""
    ahead = one.options.clients
    while one.begun < one.options.faults and (
        number - ahead > one.options.tasks * (one.begun + 1) / one.options.faults
    ):
        await asyncio.sleep(0.05)


async def _each(
    one: Run, stack: Stack, count: int, work: Callable[[Client], Coroutine[Any, Any, None]]
) -> None:
    """Have so many clients do the same at once."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=count)
    async with httpx.AsyncClient(timeout=PATIENCE, limits=limits, trust_env=False) as http:
        if one.with_tasks is None:  # asked before the first fault
            doors = Doors(http, stack.doors, one.history)
            one.with_tasks = await is_offered(doors)
            one.asking = await learnt(http, doors.url) if one.options.demo else invented
        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                doors = Doors(http, stack.doors, one.history)
                group.create_task(work(Client(doors, one.asking, with_tasks=one.with_tasks)))


async def _tell(one: Run, told: Callable[[str], None]) -> None:
    for seconds in itertools.count(10, 10):
        await asyncio.sleep(10)
        told(f"{seconds} s: {one.ended} tasks ended, {one.struck.total()} faults")


async def _strike_all(one: Run, stack: Stack, told: Callable[[str], None]) -> None:
    """Do every fault when its share of tasks has ended, or when nothing has moved for long.

    Faults of one family follow each other; those of different families may overlap.
    """
    families: dict[str, asyncio.Lock] = {}
    async with asyncio.TaskGroup() as group:
        for fault in plan(one.options.seed, one.options.faults, one.options.kinds):
            await _until_due(one, fault)
            family = families.setdefault(one.options.kinds[fault.kind].family, asyncio.Lock())
            await family.acquire()
            group.create_task(_strike(one, stack, fault, family, told))


async def _until_due(one: Run, fault: Fault) -> None:
    ended, since = one.ended, time.monotonic()
    while one.ended < fault.at * one.options.tasks:
        if one.ended > ended:
            ended, since = one.ended, time.monotonic()
        elif time.monotonic() > since + one.options.impatience_s:
            return
        await asyncio.sleep(0.02)


async def _strike(
    one: Run, stack: Stack, fault: Fault, family: asyncio.Lock, told: Callable[[str], None]
) -> None:
    try:
        one.begun += 1
        one.history.note(Struck(f"{fault} begins"))
        done = await strike(stack, fault, one.options.kinds, told)
        one.history.note(Struck(f"{fault} is over"))
    finally:
        family.release()
    one.struck[f"{fault.kind} {fault.target}"] += 1
    one.missed += not done


async def _settle(one: Run, stack: Stack) -> None:
    """Wait for quiet, then read every result again: none may have changed."""
    await stack.ready()
    await _until_empty(one, stack)
    ids = sorted({event.task for event in one.history if isinstance(event, Accepted)})
    left = iter(ids)

    async def read_again(client: Client) -> None:
        for task in left:
            await client.read_again(task)

    await _each(one, stack, 8, read_again)
    one.runs = await stack.runs()
    await _until_the_books_add_up(one, stack)
    await _until_no_orphans(one, stack)


async def _until_empty(one: Run, stack: Stack) -> None:
    until = time.monotonic() + QUIET_S
    depth: Any = None
    while time.monotonic() < until:
        try:
            depth = await stack.depth()
        except ForebayError as error:
            depth = error
        else:
            if not depth.waiting and not depth.leased:
                return
        await asyncio.sleep(0.25)
    one.extra.append(Violation("left", "the queue", f"is not empty after {QUIET_S} s: {depth}"))


async def _until_the_books_add_up(one: Run, stack: Stack) -> None:
    """What the queue counts and lists agrees with its tasks, once nothing moves."""
    until = time.monotonic() + BOOKS_S
    while faults := await stack.faults_of_the_books():
        if time.monotonic() > until:
            one.extra.extend(Violation("books", "the queue", fault) for fault in faults[:20])
            return
        await asyncio.sleep(0.5)


async def _until_no_orphans(one: Run, stack: Stack) -> None:
    """Killed processes must not leave children of their own behind."""
    until = time.monotonic() + ORPHAN_S
    while orphans := [proc for proc in offspring(but=one.others) if _is_orphan(proc, stack)]:
        if time.monotonic() > until:
            names = [" ".join(proc.cmdline()[-4:]) for proc in orphans]
            one.extra.append(Violation("orphan", "processes", f"outlive their parents: {names}"))
            return
        await asyncio.sleep(0.2)


def _is_orphan(process: Any, stack: Stack) -> bool:
    """Whether it hangs on us without being one that we started."""
    started = {one.pid for one in stack.every_process}
    return process.ppid() == os.getpid() and process.pid not in started
