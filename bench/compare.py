"""The comparison: every server up at once, one of them under load at a time, round after round.

An idle server keeps its memory and next to no CPU; what all processes but the measured one used
meanwhile is in every run's ``other_cpu_s``. Within a round each run is made on every server before
the next run begins, in an order that turns from round to round, because the machine's speed drifts.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bench.client import Target, burst, closed, takes_fixed_length
from bench.engine_plan import EnginePlan
from bench.peers import forebay, knows_quantization, peer
from bench.plan import Raw
from bench.servers import Recipe, RunningServer, ServerError, running
from bench.statistics import Answer, figures
from bench.watch import watching

OURS = "forebay"
OURS_FP32 = "forebay-fp32"
_WARM_UP_PICTURES = 100_000
_PICTURES_A_ROUND = 1000
_QUANTIZATION = re.compile(r"kept_as['\"]?\s*[=:]\s*['\"]?(\w+)")


@dataclass(frozen=True, slots=True)
class Run:
    """One kind of load: ``count`` requests, ``concurrency`` at a time (None: all at once).

    ``offset`` keeps the pictures of a round's runs apart.
    """

    name: str
    count: int
    concurrency: int | None
    offset: int

    async def make(self, target: Target, first: int) -> list[Answer]:
        """Make the run on pictures from ``first`` on."""
        bodies = target.bodies(first + self.offset, self.count)
        if self.concurrency is None:
            return await burst(target, bodies)
        return await closed(target, bodies, self.concurrency)


@dataclass(frozen=True, slots=True)
class Contender:
    """A server that runs, how clients speak to it, and which runs it takes part in."""

    server: RunningServer
    target: Target
    runs: frozenset[str]


def compare(plan: EnginePlan, part: str, checkpoint: str) -> Raw:
    """Compare Forebay with the peers on one checkpoint; see the module's text."""
    runs = _runs(plan)
    raw: Raw = {"checkpoint": checkpoint, "servers": {}, "absent": {}, "rounds": []}
    with ExitStack() as stack:
        contenders = _start_all(plan, stack, checkpoint, runs, raw)
        plan.save(part, raw)
        began, longest = time.monotonic(), 0.0
        for number in range(plan.sizes.rounds):
            if time.monotonic() - began + longest > plan.round_limit_s:
                plan.say(f"{part}: the time allows no round {number + 1}")
                break
            start = time.monotonic()
            raw["rounds"].append(_round(plan, part, contenders, runs, number))
            longest = max(longest, time.monotonic() - start)
            plan.save(part, raw)
    return raw


def _runs(plan: EnginePlan) -> tuple[Run, ...]:
    sizes = plan.sizes
    return (
        Run("closed1", sizes.one_by_one, 1, 0),
        Run("closed8", sizes.eight, 8, 100),
        Run("burst50", sizes.burst, None, 200),
    )


def _start_all(
    plan: EnginePlan, stack: ExitStack, checkpoint: str, runs: Sequence[Run], raw: Raw
) -> list[Contender]:
    contenders = []
    for recipe, names in _recipes(plan, checkpoint, runs):
        plan.say(f"{checkpoint}: starting {recipe.name}")
        try:
            server = stack.enter_context(running(recipe, plan.work / "logs"))
        except ServerError as error:
            if recipe.run_dir is not None:  # ours
                raise
            raw["absent"][recipe.name] = str(error)
            plan.say(f"{checkpoint}: goes on without {error}")
            continue
        contender, about = asyncio.run(_warm_up(plan, server, names))
        contenders.append(contender)
        raw["servers"][recipe.name] = about
        plan.say(
            f"{checkpoint}: {recipe.name} ready after {server.ready_s:.1f} s, "
            f"warm after {about['warm_up_s']:.1f} s more"
        )
    return contenders


def _recipes(
    plan: EnginePlan, checkpoint: str, runs: Sequence[Run]
) -> list[tuple[Recipe, frozenset[str]]]:
    """Return every server with the runs it takes part in.

    Forebay in fp32 is there for the burst alone, and only where its default may be another.
    """
    folder, every = plan.checkpoint(checkpoint), frozenset(run.name for run in runs)
    found = [(forebay(OURS, folder, plan.folder(OURS), None), every)]
    if checkpoint == "small" and knows_quantization():
        data_dir = plan.folder(OURS_FP32)
        found.append((forebay(OURS_FP32, folder, data_dir, "none"), frozenset({"burst50"})))
    found += [(peer(name, plan.home, folder), every) for name in plan.peers]
    return found


async def _warm_up(
    plan: EnginePlan, server: RunningServer, runs: frozenset[str]
) -> tuple[Contender, Raw]:
    """Find out how to speak to a server, and let it compile and allocate what it will."""
    recipe, began = server.recipe, time.monotonic()
    target = Target(server.url, recipe.model, recipe.streams)
    target = replace(target, fixed_length=await takes_fixed_length(target))
    first, count = _WARM_UP_PICTURES, plan.sizes.warm_up
    await closed(target, target.bodies(first, 2), 1)
    await burst(target, target.bodies(first + 2, count))
    about = {
        "command": list(recipe.command),
        "ready_s": server.ready_s,
        "warm_up_s": time.monotonic() - began,
        "streams": target.streams,
        "fixed_length": target.fixed_length,
        "quantization": said_quantization(server.log),
    }
    return Contender(server, target, runs), about


def said_quantization(log: Path) -> str | None:
    """Return the quantization that a server's log tells, the last word of it."""
    said = _QUANTIZATION.findall(log.read_text(encoding="utf-8", errors="replace"))
    return said[-1] if said else None


def _round(
    plan: EnginePlan, part: str, contenders: Sequence[Contender], runs: Sequence[Run], number: int
) -> Raw:
    turned = [*contenders[number % len(contenders) :], *contenders[: number % len(contenders)]]
    results: Raw = {contender.server.name: {} for contender in contenders}
    for run in runs:
        for contender in turned:
            if run.name in contender.runs:
                made = _measure(contender, run, number * _PICTURES_A_ROUND)
                results[contender.server.name][run.name] = made
                plan.say(f"{part}: round {number + 1}, {_line(contender, run, made)}")
    return results


def _measure(contender: Contender, run: Run, first: int) -> Raw:
    with watching(contender.server.tree) as use:
        answers = asyncio.run(run.make(contender.target, first))
    return {
        **figures(answers),
        **asdict(use),
        "answers": [[answer.latency, answer.ttft, answer.tokens] for answer in answers],
    }


def _line(contender: Contender, run: Run, made: Raw) -> str:
    if "total_s" not in made:
        return f"{contender.server.name} {run.name}: every request failed: {made['errors']}"
    failed = f", {made['failed']} FAILED" if made["failed"] else ""
    return (
        f"{contender.server.name} {run.name}: {made['total_s']:.1f} s, "
        f"{made['requests_per_s']:.2f} requests/s, TTFT {made['ttft_p50_s']:.2f} s, "
        f"{made['tokens_per_request']:.0f} tokens each{failed}"
    )


Part = Callable[[EnginePlan, str], Raw]


def small(plan: EnginePlan, part: str) -> Raw:
    """Compare on the checkpoint of 150 million parameters."""
    return compare(plan, part, "small")


def tiny(plan: EnginePlan, part: str) -> Raw:
    """Compare on the checkpoint of 11 million parameters, where the stack around weighs most."""
    return compare(plan, part, "tiny")
