"""A burst in the engine alone: a process that writes how long it took.

    python -m bench.door_engine CHECKPOINT FIRST COUNT OUT.json

The engine is the worker's own, on the thread and behind the port that the worker has it on.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import time
from pathlib import Path

import uvloop

from bench.client import ANSWER_TOKENS
from bench.door_road import WARM_UP, WARM_UP_FROM, questions
from bench.pictures import SIDE, picture
from forebay.admission.decode import normalise
from forebay.admission.header import read_header
from forebay.config import load_settings
from forebay.core.events import Failed, Finished
from forebay.core.request import (
    ImagePart,
    InferenceRequest,
    Message,
    Role,
    SamplingParams,
    TaskId,
    Terms,
    TextPart,
)
from forebay.worker.engine_port import EnginePort
from forebay.worker.local import load


def main() -> None:
    """Measure one burst."""
    checkpoint, first, count, out = sys.argv[1:]
    engine, _ = load(load_settings(model=checkpoint))
    total_s = uvloop.run(_measure(engine, int(first), int(count)))
    Path(out).write_text(json.dumps({"total_s": total_s}), encoding="utf-8")


async def _measure(engine: EnginePort, first: int, count: int) -> float:
    engine.start()
    await _burst(engine, WARM_UP_FROM, WARM_UP)
    total_s = await _burst(engine, first, count)
    await engine.stop()
    return total_s


async def _burst(engine: EnginePort, first: int, count: int) -> float:
    asked = [_request(first + at, question) for at, question in enumerate(questions(first, count))]
    began = time.perf_counter()
    await asyncio.gather(*(_ask(engine, first + at, *one) for at, one in enumerate(asked)))
    left = count
    while left:
        for event in await engine.next_events():
            if isinstance(event, Failed):
                raise SystemExit(f"the engine refused a request: {event}")
            left -= isinstance(event, Finished)
    return time.perf_counter() - began


async def _ask(engine: EnginePort, number: int, request: InferenceRequest, image: bytes) -> None:
    run = TaskId(f"t{number}")
    sha256 = hashlib.sha256(image).hexdigest()
    engine.add(run, await engine.prepare(run, request, {sha256: image}, Terms()))


def _request(index: int, question: str) -> tuple[InferenceRequest, bytes]:
    content = picture(index)
    image, width, height = normalise(content, read_header(content), SIDE, 85)
    parts = (ImagePart(hashlib.sha256(image).hexdigest(), width, height), TextPart(question))
    sampling = SamplingParams(
        max_tokens=ANSWER_TOKENS, temperature=0, ignore_eos=True, min_tokens=ANSWER_TOKENS
    )
    return InferenceRequest("bench", (Message(Role.USER, parts),), sampling), image


if __name__ == "__main__":
    main()
