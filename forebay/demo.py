"""A burst of sample pictures through the public API, and what came of it."""

from __future__ import annotations

import asyncio
import json
import mimetypes
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Final

import httpx

SAMPLES_FOLDER: Final = Path(__file__).parent / "samples"
BURST: Final = 50
POLL_S: Final = 0.2
CALL_TIMEOUT_S: Final = 120.0
"""A call at the tail of a burst waits until its picture's turn to be decoded."""

OWN_RUN: Final = {"Cache-Control": "no-store"}
"""A burst larger than the samples asks some twice, and every answer in its figures is computed."""

PUNCTUATION: Final = " \t\r\n.。!!"


class SamplesError(Exception):
    """The sample pictures cannot be used."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A picture with a question and the right answer."""

    path: Path
    question: str
    answer: str

    def is_right(self, given: str) -> bool:
        """Whether an answer says the right thing: case, spaces around and a full stop are free."""
        return _plain(given) == _plain(self.answer)


class Fate(StrEnum):
    """What became of a request. ``LOST``: accepted, and then no word of it."""

    ANSWERED = "answered"
    FAILED = "failed"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Shot:
    """One request of the burst. ``seconds``: from sending it to seeing its end."""

    sample: Sample
    fate: Fate
    text: str
    seconds: float

    @property
    def right(self) -> bool:
        """Whether it was answered rightly."""
        return self.fate is Fate.ANSWERED and self.sample.is_right(self.text)


@dataclass(frozen=True, slots=True)
class BurstReport:
    """The burst as a whole; times in seconds since it began."""

    shots: tuple[Shot, ...]

    def count(self, fate: Fate) -> int:
        """Return how many requests had that fate."""
        return sum(shot.fate is fate for shot in self.shots)

    @property
    def right(self) -> int:
        """How many answers were right."""
        return sum(shot.right for shot in self.shots)

    def percentile(self, share: float) -> float:
        """Return the time within which ``share`` of the answers had come; 0 without any."""
        times = self.answer_times()
        return times[min(len(times) - 1, int(share * len(times)))] if times else 0.0

    def answer_times(self) -> list[float]:
        """Return the answers' times, the fastest first."""
        return sorted(shot.seconds for shot in self.shots if shot.fate is Fate.ANSWERED)

    def to_dict(self, worker_peak_mb: float) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            **{fate.value: self.count(fate) for fate in Fate},
            "right": self.right,
            "of": len(self.shots),
            "p50_s": round(self.percentile(0.50), 3),
            "p99_s": round(self.percentile(0.99), 3),
            "worker_peak_mb": round(worker_peak_mb, 1),
        }


def load_samples(folder: Path = SAMPLES_FOLDER, count: int = BURST) -> list[Sample]:
    """Read ``samples.json`` and repeat it up to ``count``.

    Raises:
        SamplesError: the file, or a picture that it names, is missing or not of the known form.
    """
    listing = folder / "samples.json"
    try:
        rows = json.loads(listing.read_text(encoding="utf-8"))
        samples = [Sample(folder / row["file"], row["question"], row["answer"]) for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SamplesError(f"{listing}: {error}") from error
    missing = [sample.path.name for sample in samples if not sample.path.is_file()]
    if missing or not samples:
        raise SamplesError(f"{listing}: no such pictures: {', '.join(missing) or 'none listed'}")
    return list(islice(cycle(samples), count))


async def run_burst(
    url: str,
    samples: Sequence[Sample],
    *,
    on_end: Callable[[Shot], None],
    limit_s: float = 900.0,
) -> BurstReport:
    """Send every sample at once to the API at ``url`` and wait for all ends.

    ``on_end`` is told of each as it comes; what has no end after ``limit_s`` is lost.
    """
    began = time.monotonic()
    limits = httpx.Limits(max_connections=len(samples) + 1)
    async with httpx.AsyncClient(
        base_url=url, timeout=CALL_TIMEOUT_S, limits=limits, headers=OWN_RUN, trust_env=False
    ) as client:

        async def shoot(sample: Sample) -> Shot:
            fate, text = await _ask(client, sample, began + limit_s)
            shot = Shot(sample, fate, text, time.monotonic() - began)
            on_end(shot)
            return shot

        return BurstReport(tuple(await asyncio.gather(*map(shoot, samples))))


async def _ask(client: httpx.AsyncClient, sample: Sample, deadline: float) -> tuple[Fate, str]:
    kind = mimetypes.guess_type(sample.path.name)[0] or "application/octet-stream"
    try:
        reply = await client.post(
            "/predict",
            files={"image": (sample.path.name, _read(sample.path), kind)},
            data={"prompt": sample.question},
        )
    except httpx.HTTPError as error:
        return Fate.FAILED, f"not accepted: {type(error).__name__}: {error}"
    if not reply.is_success:
        return Fate.FAILED, f"not accepted: {reply.status_code} {reply.text[:200]}"
    return await _follow(client, reply.json()["task_id"], deadline)


async def _follow(client: httpx.AsyncClient, task_id: str, deadline: float) -> tuple[Fate, str]:
    """Ask for the result until there is one. A call that fails is asked again: the task stays."""
    last = "no answer in time"
    while time.monotonic() < deadline:
        try:
            reply = await client.get("/result", params={"task_id": task_id})
            body = reply.json()
        except (httpx.HTTPError, ValueError) as error:
            last = f"{type(error).__name__}: {error}"
            body = {}
        match body.get("status"):
            case "success":
                return Fate.ANSWERED, str(body["response"])
            case "error":
                return Fate.FAILED, str(body.get("error"))
        await asyncio.sleep(POLL_S)
    return Fate.LOST, last


def _read(path: Path) -> bytes:
    return path.read_bytes()


def _plain(text: str) -> str:
    return " ".join(text.strip(PUNCTUATION).casefold().split())
