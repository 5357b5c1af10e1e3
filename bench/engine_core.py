"""Figures of the engine itself, without the stack around it: a process that writes them as JSON.

    python -m bench.engine_core steps|decode|kv CHECKPOINT OUT.json --sizes JSON

The engine is built by the worker's own function from the same settings, so it is the one that
``forebay serve`` runs on this machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import statistics
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.client import ANSWER_TOKENS, QUESTIONS
from bench.engine_plan import EngineSizes
from bench.pictures import SIDE, picture
from bench.plan import Raw
from bench.step_split import split
from forebay.config import load_settings
from forebay.core.events import Finished, StepStats
from forebay.core.request import (
    ImagePart,
    InferenceRequest,
    Message,
    Role,
    SamplingParams,
    TaskId,
    TextPart,
)
from forebay.engine.engine import Engine, StepResult
from forebay.engine.prepared import PreparedRequest
from forebay.models.glm4v.model import Glm4vModel
from forebay.models.loader import load_model
from forebay.models.tokenizer import TextTokenizer
from forebay.worker.local import load_engine

CONCURRENCIES = (1, 8, 50)
RUNNING = (1, 2, 4, 8, 16)
_RUNS = 3
_KV_ANSWERS = 2


class Asked:
    """An engine that is asked about the bench's pictures."""

    def __init__(self, checkpoint: Path) -> None:
        settings = load_settings(model=str(checkpoint))
        self.max_running = settings.max_running
        self.engine: Engine = load_engine(settings)
        self._asked = 0

    def prepare(self, index: int, max_tokens: int) -> PreparedRequest:
        """Return the request about picture ``index``, ready for the engine."""
        self._asked += 1
        content = picture(index)
        sha256 = hashlib.sha256(content).hexdigest()
        question = TextPart(f"{QUESTIONS[index % len(QUESTIONS)]} ({index})")
        parts = (ImagePart(sha256, SIDE, SIDE), question)
        request = InferenceRequest("bench", (Message(Role.USER, parts),), _greedy(max_tokens))
        return self.engine.prepare(TaskId(f"t{self._asked}"), request, {sha256: content})

    def results(self) -> Iterator[StepResult]:
        """Step until there is no work."""
        while self.engine.has_work:
            yield self.engine.step()


def _greedy(max_tokens: int) -> SamplingParams:
    """Return greedy sampling for exactly ``max_tokens``, where the engine can promise that."""
    known = {field.name for field in dataclasses.fields(SamplingParams)}
    fixed: dict[str, Any] = {"ignore_eos": True, "min_tokens": max_tokens}
    fields = {name: value for name, value in fixed.items() if name in known}
    return SamplingParams(max_tokens=max_tokens, **fields)


def steps(checkpoint: Path, sizes: EngineSizes) -> Raw:
    """Split the steps' time at several concurrencies; each request's picture is its own."""
    asked = Asked(checkpoint)
    return {
        str(concurrency): _split(
            asked, concurrency, first=concurrency * 1000, count=_count(concurrency, sizes)
        )
        for concurrency in CONCURRENCIES
    }


def _count(concurrency: int, sizes: EngineSizes) -> int:
    return {1: sizes.one_by_one, 8: sizes.eight}.get(concurrency, sizes.step_requests)


def _split(asked: Asked, concurrency: int, first: int, count: int) -> Raw:
    began = time.perf_counter()
    prepared = [asked.prepare(first + at, ANSWER_TOKENS) for at in range(count)]
    prepare_s = time.perf_counter() - began
    waiting, seen = iter(prepared), list[StepStats]()
    for one in islice(waiting, concurrency):
        asked.engine.add(one)
    began = time.perf_counter()
    for result in asked.results():
        seen.append(result.stats)
        ended = sum(isinstance(event, Finished) for event in result.events)
        for another in islice(waiting, ended):
            asked.engine.add(another)
    total_s = time.perf_counter() - began
    tokens = sum(stats.decode_tokens for stats in seen) + count
    return {
        "requests": count,
        "steps": len(seen),
        "total_s": total_s,
        "requests_per_s": count / total_s,
        "tokens_per_s": tokens / total_s,
        "prepare_s_a_request": prepare_s / count,
        "split_s": split(seen),
        "vision_beside_s": sum(stats.vision_beside_s for stats in seen),
    }


def decode(checkpoint: Path, sizes: EngineSizes) -> Raw:
    """Time a decode step by the number of running sequences, each with a picture of its own.

    Runs of different numbers take turns, so that the machine's drift meets them alike.
    """
    asked = Asked(checkpoint)
    numbers = [number for number in RUNNING if number <= asked.max_running]
    seen: dict[int, list[float]] = {number: [] for number in numbers}
    for _ in range(_RUNS):
        for number in numbers:
            seen[number] += _decode_steps(asked, number, sizes.decode_steps)
    return {
        "steps": {str(number): len(times) for number, times in seen.items()},
        "step_ms": {str(number): 1000 * statistics.median(t) for number, t in seen.items()},
    }


def _decode_steps(asked: Asked, number: int, count: int) -> list[float]:
    for at in range(number):
        asked.engine.add(asked.prepare(at, count + 1))
    return [
        result.stats.step_s
        for result in asked.results()
        if result.stats.decode_tokens == number and not result.stats.prefill_tokens
    ]


def kv(checkpoint: Path, sizes: EngineSizes) -> Raw:
    """Time one greedy answer with the KV cache, and recomputed from the start for each token.

    The picture is encoded once in both. Both are fp32, so that their tokens can be compared.
    """
    asked, model = Asked(checkpoint), load_model(checkpoint, dtype=torch.float32)
    tokenizer = TextTokenizer.from_folder(checkpoint)
    raw: Raw = {"tokens": [], "cached_s": [], "recomputed_s": [], "equal": []}
    for index in range(_KV_ANSWERS):
        prepared = asked.prepare(index, sizes.kv_tokens)
        began = time.perf_counter()
        answer = _answer(asked, prepared)
        cached = time.perf_counter()
        tokens = recomputed(model, prepared, answer.usage.completion_tokens)
        raw["recomputed_s"].append(time.perf_counter() - cached)
        raw["cached_s"].append(cached - began)
        raw["tokens"].append(len(tokens))
        raw["equal"].append(tokenizer.decode(tokens) == answer.text)
    return raw


def _answer(asked: Asked, prepared: PreparedRequest) -> Finished:
    asked.engine.add(prepared)
    events = [event for result in asked.results() for event in result.events]
    (finished,) = (event for event in events if isinstance(event, Finished))
    return finished


@torch.inference_mode()
def recomputed(model: Glm4vModel, prepared: PreparedRequest, count: int) -> list[int]:
    """Return ``count`` greedy tokens, every one from a run over the whole sequence."""
    picture_tokens = {
        sha256: model.visual(torch.from_numpy(image.patches), [image.grid])
        for sha256, image in prepared.images.items()
    }
    ids = list(prepared.token_ids)
    prompt = len(ids)
    positions = torch.from_numpy(prepared.positions)
    for _ in range(count):
        embeds = model.embed(torch.tensor(ids))
        for span in prepared.spans:
            embeds[span.start : span.end] = picture_tokens[span.sha256]
        after = prepared.next_position + torch.arange(len(ids) - prompt)
        whole = torch.cat((positions, after.expand(3, -1)), dim=1)
        hidden = model.decode(embeds, whole, _attend_densely)
        ids.append(int(model.logits(hidden[-1:]).argmax()))
    return ids[prompt:]


def _attend_densely(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend causally within the tokens at hand; see ``forebay.models.glm4v.text.Attend``."""
    del layer
    queries, keys, values = (part.transpose(0, 1).unsqueeze(0) for part in (q, k, v))
    out = F.scaled_dot_product_attention(queries, keys, values, is_causal=True, enable_gqa=True)
    return out.squeeze(0).transpose(0, 1)


PARTS = {"steps": steps, "decode": decode, "kv": kv}


def main() -> None:
    """Measure one part and write its figures."""
    parser = argparse.ArgumentParser(description="Measure the engine in this process.")
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--sizes", type=json.loads, required=True)
    options = parser.parse_args()
    raw = PARTS[options.part](options.checkpoint, EngineSizes(**options.sizes))
    options.out.write_text(json.dumps(raw) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
