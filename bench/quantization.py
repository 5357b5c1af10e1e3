"""INT8 against single precision, the whole engine: ``python -m bench.quantization --json FILE``.

Two engines over one checkpoint answer the same bursts in turn, in one process: only the ratio of
their times means anything on a machine that others use.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import platform
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

import torch
from PIL import Image

from forebay.core.events import Finished
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
from forebay.engine.limits import EngineLimits
from forebay.engine.prepared import PreparedRequest
from forebay.models.quantization import Quantization

QUESTION = "What is in the picture?"
KINDS = (Quantization.NONE, Quantization.INT8)


@dataclass(frozen=True, slots=True)
class Burst:
    """One burst's cost in seconds, and where the steps spent it.

    ``cpu_s``: processor time of the whole process; it does not count waiting for a core.
    """

    kind: str
    wall_s: float
    cpu_s: float
    vision_s: float
    decoder_s: float
    tokens: int


def picture(side: int, seed: int) -> tuple[ImagePart, bytes]:
    """Draw rectangles of random colours on a square, stored as PNG."""
    rng = Random(seed)
    drawn = Image.new("RGB", (side, side))
    for _ in range(40):
        corner = rng.randrange(side), rng.randrange(side)
        size = rng.randrange(1, side), rng.randrange(1, side)
        colour = rng.randrange(256), rng.randrange(256), rng.randrange(256)
        drawn.paste(colour, (*corner, corner[0] + size[0], corner[1] + size[1]))
    content = io.BytesIO()
    drawn.save(content, "PNG")
    data = content.getvalue()
    return ImagePart(hashlib.sha256(data).hexdigest(), side, side), data


def prepare(engine: Engine, count: int, side: int, tokens: int, seed: int) -> list[PreparedRequest]:
    """Prepare a burst of requests, a picture each that the engine has not seen."""
    prepared = []
    for at in range(count):
        part, data = picture(side, seed * 10_000 + at)
        message = Message(Role.USER, (part, TextPart(QUESTION)))
        request = InferenceRequest("bench", (message,), SamplingParams(max_tokens=tokens))
        prepared.append(engine.prepare(TaskId(f"{seed}-{at}"), request, {part.sha256: data}))
    return prepared


def run(engine: Engine, kind: Quantization, burst: list[PreparedRequest]) -> Burst:
    """Answer a burst; the pictures' decoding is not counted."""
    vision = decoder = 0.0
    tokens = 0
    wall, cpu = time.perf_counter(), time.process_time()
    for prepared in burst:
        engine.add(prepared)
    while engine.has_work:
        result = engine.step()
        vision += result.stats.vision_s
        decoder += result.stats.decoder_s
        ended = (event for event in result.events if isinstance(event, Finished))
        tokens += sum(event.usage.completion_tokens for event in ended)
    return Burst(
        kind.value,
        time.perf_counter() - wall,
        time.process_time() - cpu,
        vision,
        decoder,
        tokens,
    )


def measure(options: argparse.Namespace) -> list[Burst]:
    """Run the rounds, the kinds in turn; one small burst each before warms both up."""
    if options.threads:
        torch.set_num_threads(options.threads)
    engines = {
        kind: Engine.from_folder(
            options.model, limits=EngineLimits(), device="cpu", quantization=kind
        )
        for kind in KINDS
    }
    bursts = []
    for turn in range(options.rounds + 1):
        for kind, engine in engines.items():
            count = options.count if turn else 1
            found = run(
                engine, kind, prepare(engine, count, options.side, options.max_tokens, turn)
            )
            if turn:
                bursts.append(found)
                print(f"{kind:4}  {found.wall_s:7.2f} s  processor {found.cpu_s:7.2f} s")
    return bursts


def ratio(bursts: list[Burst], field: str) -> float:
    """Return how many times longer single precision takes, in medians of a field."""
    medians = [
        statistics.median(getattr(burst, field) for burst in bursts if burst.kind == kind.value)
        for kind in KINDS
    ]
    return round(float(medians[0] / medians[1]), 3)


def main() -> None:
    """Measure, print the ratios, write the raw runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="checkpoint folder")
    parser.add_argument("--count", type=int, default=50, help="pictures of a burst")
    parser.add_argument("--side", type=int, default=512, help="side of a picture in pixels")
    parser.add_argument("--max-tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="0: torch's own choice")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    bursts = measure(options)
    fields = ("wall_s", "cpu_s", "vision_s", "decoder_s")
    ratios = {f"int8_vs_fp32_{field}": ratio(bursts, field) for field in fields}
    print(json.dumps(ratios, indent=2))
    if options.json:
        asked = {name: str(value) for name, value in vars(options).items()}
        machine = {
            "machine": platform.processor() or platform.machine(),
            "torch": torch.__version__,
        }
        content = {**ratios, "options": asked, **machine, "runs": [asdict(one) for one in bursts]}
        options.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
