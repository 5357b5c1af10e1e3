"""Answers to figures: percentiles, rates, and the ratios of the summary. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Figures = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request got. Seconds; ``began`` is on this process's clock.

    ``ttft``: until the first text; None where the server does not stream, or failed.
    """

    began: float
    latency: float
    ttft: float | None
    tokens: int
    text: str
    error: str | None = None

    @property
    def first_word(self) -> float:
        """Seconds until a client had something to show: all of it where nothing is streamed."""
        return self.latency if self.ttft is None else self.ttft

    @property
    def tpot(self) -> float | None:
        """Seconds a token after the first; None where the stream does not tell."""
        if self.ttft is None or self.tokens < 2:
            return None
        return (self.latency - self.ttft) / (self.tokens - 1)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least ``share`` of them do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def figures(answers: Sequence[Answer]) -> Figures:
    """Return a run's figures. Latencies in seconds, TPOT in milliseconds.

    Failed requests count in ``failed`` alone. ``median_over_last``: when half of the answers were
    there, as a share of the time of the last.
    """
    good = [answer for answer in answers if answer.error is None]
    errors = sorted({answer.error for answer in answers if answer.error is not None})
    counts = {"requests": len(answers), "failed": len(answers) - len(good), "errors": errors[:3]}
    if not good:
        return counts
    begin = min(answer.began for answer in answers)
    ends = [answer.began + answer.latency - begin for answer in good]
    total, tokens = max(ends), sum(answer.tokens for answer in good)
    first_words = [answer.first_word for answer in good]
    latencies = [answer.latency for answer in good]
    tpots = [tpot for answer in good if (tpot := answer.tpot) is not None]
    return {
        **counts,
        "total_s": total,
        "requests_per_s": len(good) / total,
        "tokens_per_s": tokens / total,
        "tokens_per_request": tokens / len(good),
        "ttft_p50_s": percentile(first_words, 0.5),
        "ttft_p99_s": percentile(first_words, 0.99),
        "latency_p50_s": percentile(latencies, 0.5),
        "latency_p99_s": percentile(latencies, 0.99),
        "tpot_p50_ms": 1000 * statistics.median(tpots) if tpots else None,
        "median_over_last": percentile(ends, 0.5) / total,
    }


def paired_ratio(ours: Sequence[float | None], theirs: Sequence[float | None]) -> float | None:
    """Return the median of the ratios within each round; None without a whole pair.

    The machine's speed drifts over minutes. Within a round both ran side by side, so the drift
    falls out of each ratio.
    """
    ratios = [
        one / other for one, other in zip(ours, theirs, strict=False) if one is not None and other
    ]
    return statistics.median(ratios) if ratios else None


def best_of(values: Mapping[str, Sequence[float | None]]) -> list[float | None]:
    """Return each round's lowest value among several servers."""
    rounds = max((len(series) for series in values.values()), default=0)
    best: list[float | None] = []
    for at in range(rounds):
        present = [s[at] for s in values.values() if at < len(s) and s[at] is not None]
        best.append(min((one for one in present if one is not None), default=None))
    return best


def growth_share(one: float, many: float, sequences: int) -> float:
    """Return the growth from 1 sequence to ``sequences``, as a share of proportional growth.

    1 means that a step with n sequences takes n times as long, 1/n that it takes no longer.
    """
    return many / one / sequences


def relative_difference(before: float, after: float) -> float:
    """Return by which share of ``before`` the two differ; the sign says which way."""
    return (after - before) / before
