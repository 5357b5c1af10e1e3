"""Requests that come at their own pace, whether or not the engine keeps up (an open loop).

Pictures are decoded by threads beside the one that steps the engine, as in a worker.
"""

from __future__ import annotations

import io
import random
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from forebay.core.events import Finished, TokenDelta
from forebay.core.request import (
    ImagePart,
    InferenceRequest,
    Message,
    Role,
    SamplingParams,
    TaskId,
    TextPart,
)
from forebay.engine.engine import Engine

SIDE = 512
TOKENS = 16
DIFFERENT_PICTURES = 16
QUESTION = "What is the price of the product in this picture, and in which currency is it?"


@dataclass
class Arrivals:
    """What became of the requests of one run: times in seconds since its start."""

    due: dict[TaskId, float] = field(default_factory=dict)
    first: dict[TaskId, float] = field(default_factory=dict)
    done: dict[TaskId, float] = field(default_factory=dict)


def pictures(side: int = SIDE) -> list[bytes]:
    """Return a few JPEGs of noise on a gradient: as dear to decode as photographs."""
    rng = np.random.default_rng(0)
    base = np.asarray(Image.radial_gradient("L").resize((side, side)).convert("RGB"), np.int16)
    made = []
    for _ in range(DIFFERENT_PICTURES):
        noisy = (base + rng.integers(-30, 30, base.shape)).clip(0, 255).astype(np.uint8)
        content = io.BytesIO()
        Image.fromarray(noisy).save(content, "JPEG", quality=85)
        made.append(content.getvalue())
    return made


def request(name: str, side: int | None, tokens: int, text: str = QUESTION) -> InferenceRequest:
    """Return a question, about a picture nobody asked about before where ``side`` is given."""
    parts: tuple[Any, ...] = (TextPart(f"{name} {text}"),)
    if side is not None:
        parts = (ImagePart(sha(name), side, side), *parts)
    return InferenceRequest("m", (Message(Role.USER, parts),), SamplingParams(max_tokens=tokens))


def sha(name: str) -> str:
    """Return a picture's key of its own, so that no cache knows it."""
    return name.encode().hex().zfill(64)


def open_loop(
    engine: Engine, rate: float, seconds: float, threads: int, tokens: int = TOKENS
) -> dict[str, float]:
    """Offer ``rate`` requests a second for ``seconds``; return what came of it.

    Gaps are drawn exponentially. A latency counts from when a request was due to its last token.
    The run ends when all are answered, or after twice its time: what is not done then is counted
    as unfinished, and as slow as the run was long.
    """
    rng = random.Random(f"{rate}:{seconds}")
    due, at = [], rng.expovariate(rate)
    while at < seconds:
        due.append(at)
        at += rng.expovariate(rate)
    arrivals, ready, shown = Arrivals(), deque[Any](), pictures()
    began = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        arrive = threading.Thread(
            target=_arrive, args=(engine, due, began, pool, arrivals, ready, shown, tokens)
        )
        arrive.start()
        _answer(engine, len(due), began, 2 * seconds, arrivals, ready)
        arrive.join()
    elapsed = time.perf_counter() - began
    for task_id in arrivals.due:
        engine.abort(task_id)
    return _figures(arrivals, rate, seconds, elapsed)


def _arrive(
    engine: Engine,
    due: list[float],
    began: float,
    pool: ThreadPoolExecutor,
    arrivals: Arrivals,
    ready: deque[Any],
    shown: list[bytes],
    tokens: int,
) -> None:
    for at, when in enumerate(due):
        time.sleep(max(0.0, began + when - time.perf_counter()))
        name = f"{began:.6f}-{at}"
        arrivals.due[TaskId(name)] = when
        content = {sha(name): shown[at % len(shown)]}
        asked = request(name, SIDE, tokens)
        future = pool.submit(engine.prepare, TaskId(name), asked, content)
        future.add_done_callback(lambda one: ready.append(one.result()))


def _answer(
    engine: Engine,
    count: int,
    began: float,
    limit: float,
    arrivals: Arrivals,
    ready: deque[Any],
) -> None:
    while len(arrivals.done) < count and time.perf_counter() - began < limit:
        while ready:
            engine.add(ready.popleft())
        if not engine.has_work:
            time.sleep(0.0005)
            continue
        events = engine.step().events
        now = time.perf_counter() - began
        for event in events:
            if isinstance(event, TokenDelta):
                arrivals.first.setdefault(event.task_id, now)
            elif isinstance(event, Finished):
                arrivals.first.setdefault(event.task_id, now)
                arrivals.done[event.task_id] = now


def _figures(arrivals: Arrivals, rate: float, seconds: float, elapsed: float) -> dict[str, float]:
    done = arrivals.done
    latencies = [done.get(one, elapsed) - when for one, when in arrivals.due.items()]
    firsts = [arrivals.first.get(one, elapsed) - when for one, when in arrivals.due.items()]
    offered = len(arrivals.due) / seconds
    return {
        "rate": rate,
        "offered_per_s": offered,
        "answered_per_s": len(done) / elapsed,
        "unfinished": len(arrivals.due) - len(done),
        "last_answer_after_s": elapsed - seconds,
        "latency_p50_ms": 1e3 * percentile(latencies, 50),
        "latency_p99_ms": 1e3 * percentile(latencies, 99),
        "ttft_p50_ms": 1e3 * percentile(firsts, 50),
        "ttft_p99_ms": 1e3 * percentile(firsts, 99),
        "sustained": float(done.keys() == arrivals.due.keys() and elapsed < 1.1 * seconds + 1),
    }


def percentile(values: list[float], rank: float) -> float:
    """Return the value that ``rank`` percent are no larger than; 0 without values."""
    return float(np.percentile(values, rank)) if values else 0.0


def largest_rate(
    engine: Engine, seconds: float, threads: int, limit_ms: float, highest: float, runs: int
) -> dict[str, Any]:
    """Search, by halving, for the largest rate whose 99th percentile stays under ``limit_ms``."""
    low, high, tried = 0.0, highest, []
    for _ in range(runs):
        rate = (low + high) / 2
        tried.append(open_loop(engine, rate, seconds, threads))
        if tried[-1]["sustained"] and tried[-1]["latency_p99_ms"] < limit_ms:
            low = rate
        else:
            high = rate
    return {"limit_ms": limit_ms, "rate": low, "next_rate_over": high, "runs": tried}
