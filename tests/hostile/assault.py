"""The whole of it: a stack, every attack, and what must be true of the stack afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import httpx

from tests.hostile.attack import PROMPT
from tests.hostile.attacks import attacks, doubtful
from tests.hostile.pictures import noise
from tests.hostile.run import SECRETS, Report, throw
from tests.hostile.stack import log_holds, processes, settings, watched
from tests.hostile.tokens import Issuer, issuing
from tests.hostile.urls import Hosts, hosts
from tests.integration.stack import ServeProcess, serving

DOUBTFUL_SHARE = 0.1
"""Pictures with bytes changed, beside the attacks; they are not counted as such."""

MOST_API_BYTES = 700 * 2**20
"""Resident: what the process has at rest, 256 MiB of bodies, and copies of a few."""

MOST_DECODER_BYTES = 2**31

MOST_KEY_SETS = 40
"""Unknown key ids ask for them once in half a minute at most, and a run takes minutes."""

GATE = ("401", "403", "429")
"""What is said to who may not come in, or comes too often: of the attack itself it says nothing."""


def assault(
    folder: Path, model: Path, count: int, seed: int, say: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Return the figures; ``faults`` in them is empty when every promise was kept."""
    return asyncio.run(_assault(folder, model, count, seed, say))


async def _assault(
    folder: Path, model: Path, count: int, seed: int, say: Callable[[str], None]
) -> dict[str, Any]:
    async with hosts() as targets, issuing(targets.trap.port) as issuer:
        with ExitStack() as stack:
            terms = settings(targets.outside.port) | issuer.settings
            stack.enter_context(patch.dict("os.environ", terms))
            serve = await asyncio.to_thread(stack.enter_context, serving(model, folder))
            say(f"the stack listens at {serve.url}; {count} attacks of seed {seed}")
            return await _attacked(serve, targets, issuer, count, seed)


async def _attacked(
    serve: ServeProcess, targets: Hosts, issuer: Issuer, count: int, seed: int
) -> dict[str, Any]:
    before = processes(serve.process.pid)
    with watched(serve.process.pid) as memory:
        tricks = attacks(count, seed, targets, issuer)
        report = await throw(serve.url, tricks, issuer.good)
        damaged = doubtful(int(count * DOUBTFUL_SHARE), seed)
        broken = await throw(serve.url, damaged, issuer.good, refused=False)
    after = processes(serve.process.pid)
    report.faults += broken.faults
    report.faults += await _what_is_lost(before, after, memory.most, serve, targets, report)
    report.faults += await _who_came_in(serve, issuer, report)
    report.faults += await _still_serves(serve.url, issuer)
    return {
        **report.figures(),
        "doubtful": dict(broken.statuses),
        "most_resident_mb": {role: size // 2**20 for role, size in memory.most.items()},
        "decoders_replaced": len(set(after["decoder"]) - set(before["decoder"])),
    }


async def _what_is_lost(
    before: dict[str, list[int]],
    after: dict[str, list[int]],
    most: dict[str, int],
    serve: ServeProcess,
    targets: Hosts,
    report: Report,
) -> list[str]:
    faults = [
        f"the {role} process was lost: {before[role]} {after.get(role)}"
        for role in before
        if role != "decoder" and before[role] != after.get(role)
    ]
    if len(before["decoder"]) != len(after.get("decoder", [])):
        faults.append(f"decoders: {before['decoder']}, then {after.get('decoder')}")
    if most["api"] > MOST_API_BYTES or most["decoder"] > MOST_DECODER_BYTES:
        faults.append(f"memory: {most}")
    if at_the_gate := {code: report.statuses[code] for code in GATE if report.statuses[code]}:
        faults.append(f"attacks that were turned away before they were any: {at_the_gate}")
    if targets.trap.connections:
        faults.append(f"a host inside was asked {targets.trap.connections} times")
    if report.sent["url"] and not targets.outside.connections:
        faults.append("no URL was fetched at all: the attacks by URL were none")
    faults += [f"in the log: {line}" for line in log_holds(serve.log, SECRETS)]
    return faults


async def _who_came_in(serve: ServeProcess, issuer: Issuer, report: Report) -> list[str]:
    """Return what tokens must not have done; 400 and 431 are the word of the parser of HTTP."""
    faults = []
    if strange := {code for code in report.at_the_gate if code not in ("400", "401", "403", "431")}:
        faults.append(f"tokens: statuses {sorted(strange)}")
    if report.sent["token"] > 50 and report.at_the_gate["401"] < report.sent["token"] // 2:
        faults.append(f"the gate looked at few of the tokens: {dict(report.at_the_gate)}")
    if issuer.server.connections > MOST_KEY_SETS:
        faults.append(f"the issuer was asked {issuer.server.connections} times for its keys")
    return faults


async def _still_serves(url: str, issuer: Issuer) -> list[str]:
    content = noise("JPEG", Random(0))
    files = {"image": ("a.jpg", content, "image/jpeg")}
    asked = {"prompt": PROMPT, "max_tokens": "4"}
    headers = {"Authorization": f"Bearer {issuer.good}"}
    async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as http:
        answer = await http.post("/v1/infer", files=files, data=asked, headers=headers)
        health = await http.get("/health")
    return [
        f"{one.request.url.path}: {one.status_code} {one.text[:200]}"
        for one in (answer, health)
        if one.status_code != 200
    ]
