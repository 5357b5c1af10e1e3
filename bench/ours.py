"""Parts that look at Forebay alone, through its door: a picture asked twice, and a long queue."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import psutil

from bench.client import QUESTIONS, Target, closed, takes_fixed_length
from bench.compare import said_quantization
from bench.engine_plan import EnginePlan
from bench.peers import forebay
from bench.pictures import picture
from bench.plan import Raw
from bench.servers import Recipe, RunningServer, ServerError, running
from bench.watch import peak_rss, pss
from forebay.ops.worker_status import WorkerStatus, read_status

_PICTURES = 64
_AT_ONCE = 8
_POLL_S = 0.05
_PROGRESS_S = 20.0
_LIMIT_S = 900.0


def repeat(plan: EnginePlan, part: str) -> Raw:
    """Ask about a picture, then about the same picture again, in other words."""
    with running(_recipe(plan, "small"), plan.work / "logs") as server:
        return asyncio.run(_repeat(plan, part, server))


async def _repeat(plan: EnginePlan, part: str, server: RunningServer) -> Raw:
    target = Target(server.url, server.recipe.model)
    fixed = await takes_fixed_length(target)
    target = Target(server.url, server.recipe.model, fixed_length=fixed)
    await closed(target, target.bodies(100_000, 2), 1)
    raw: Raw = {"quantization": said_quantization(server.log), "pictures": []}
    for index in range(plan.sizes.repeats):
        asked = [target.body(question, index) for question in QUESTIONS[:2]]
        first, other, same = [(await closed(target, [body], 1))[0] for body in (*asked, asked[0])]
        seconds = {
            "first_s": first.first_word,
            "other_question_s": other.first_word,
            "same_question_s": same.first_word,
        }
        raw["pictures"].append(seconds)
        plan.say(f"{part}: " + ", ".join(f"{name} {took:.3f}" for name, took in seconds.items()))
        plan.save(part, raw)
    return raw


def memory(plan: EnginePlan, part: str) -> Raw:
    """Measure the worker's peak memory with 1,000 requests waiting, and with 1.

    In both the engine is full all the time, and as many answers are given.
    """
    raw: Raw = {}
    for waiting in (plan.sizes.waiting, 1):
        answers = raw["many"]["answered"] if raw else 0
        with running(_recipe(plan, "tiny"), plan.work / "logs") as server:
            measured = asyncio.run(_fill(plan, part, server, waiting, answers))
        raw["one" if raw else "many"] = measured
        plan.save(part, raw)
    return raw


async def _fill(
    plan: EnginePlan, part: str, server: RunningServer, waiting: int, answers: int
) -> Raw:
    """Keep ``waiting`` requests waiting until the worker has given its answers.

    ``answers`` 0: until ``answers_meanwhile`` came after the queue had filled.
    """
    began, told, submitted = time.monotonic(), 0.0, 0
    async with _door(server) as door:
        while time.monotonic() - began < _LIMIT_S:
            now, depth = _worker(server), await _waiting(door)
            if not answers and depth >= waiting:
                answers = now.answered + plan.sizes.answers_meanwhile
            if answers and now.answered >= answers:
                return {
                    "waiting": depth,
                    "answered": now.answered,
                    "peak_rss": peak_rss(now.pid),
                    "rss": psutil.Process(now.pid).memory_info().rss,
                    "stack_pss": pss(server.tree()),
                    "seconds": time.monotonic() - began,
                }
            lacking = min(max(0, waiting - depth), _AT_ONCE)
            await asyncio.gather(*(_submit(door, submitted + at) for at in range(lacking)))
            submitted += lacking
            if time.monotonic() - told > _PROGRESS_S:
                told = time.monotonic()
                plan.say(f"{part}: {depth} wait of {waiting}, {now.answered} answered")
            if not lacking:
                await asyncio.sleep(_POLL_S)
    raise ServerError(f"not {waiting} waiting and {answers} answered in {_LIMIT_S:.0f} s")


@asynccontextmanager
async def _door(server: RunningServer) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.url, timeout=120, trust_env=False) as client:
        yield client


async def _submit(door: httpx.AsyncClient, index: int) -> None:
    question = {"prompt": f"{QUESTIONS[index % len(QUESTIONS)]} ({index})", "max_tokens": "32"}
    files = {"image": ("picture.jpg", picture(index % _PICTURES), "image/jpeg")}
    (await door.post("/predict", data=question, files=files)).raise_for_status()


async def _waiting(door: httpx.AsyncClient) -> int:
    text = (await door.get("/metrics")).text
    for line in text.splitlines():
        if line.startswith('forebay_queue_tasks{place="waiting"}'):
            return int(float(line.rsplit(" ", 1)[1]))
    raise ServerError("the metrics do not tell how many tasks wait")


def _worker(server: RunningServer) -> WorkerStatus:
    assert server.recipe.run_dir is not None
    for path in server.recipe.run_dir.glob("*.status.json"):
        status = read_status(server.recipe.run_dir, path.name.removesuffix(".status.json"))
        if status is not None:
            return status
    raise ServerError("no worker has told how it is")


def _recipe(plan: EnginePlan, checkpoint: str) -> Recipe:
    return forebay("forebay", plan.checkpoint(checkpoint), plan.folder("forebay"), None)
