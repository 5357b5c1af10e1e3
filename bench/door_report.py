"""Raw figures of the door to the summary and the table. Pure.

``docs/benchmarks.md`` defines every key of the summary; the definitions here are the same.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from bench.door_predict import FLASK, OURS, ratio
from bench.plan import Raw
from bench.report import Summary, head

KINDS = ("same", "apart", "burst_50", "burst")

TARGETS: Mapping[str, str] = {
    "refusal_p99_ms": "< 50",
    "loop_stall_ms": "<= 50",
    "predict_vs_flask": ">= 5",
    "added_p50_ms": "< 8",
    "road_vs_engine": ">= 0.97",
    "lost": "0",
    "burst_errors": "0",
}
"""The summary's keys, in order, with what each should be."""


def summary(parts: Mapping[str, Raw]) -> Summary:
    """Return every key; None where its part was not run."""
    overload, road = parts.get("overload"), parts.get("pace")
    return {
        "refusal_p99_ms": _at(overload, "refused", "p99_ms"),
        "loop_stall_ms": _at(overload, "stall", "longest_ms"),
        "predict_vs_flask": ratio(parts.get("predict"), "same"),
        "added_p50_ms": _at(parts.get("added"), "picture", "p50_ms"),
        "road_vs_engine": _pace(road),
        "lost": _at(overload, "lost"),
        "burst_errors": _errors(parts.get("predict")),
    }


def _at(raw: Any, *keys: str) -> float | None:
    for key in keys:
        raw = (raw or {}).get(key)
    return None if raw is None else float(raw)


def _pace(raw: Raw | None) -> float | None:
    ratios = [one["engine_s"] / one["road_s"] for one in (raw or {}).get("rounds", ())]
    return float(statistics.median(ratios)) if ratios else None


def _errors(raw: Raw | None) -> float | None:
    """Return how many of our bursts' requests were not accepted."""
    ours = [one[OURS] for one in (raw or {}).get("rounds", ()) if OURS in one]
    if not ours:
        return None
    bursts = [one[kind] for one in ours for kind in ("burst_50", "burst")]
    return float(sum(one["requests"] - one["statuses"].get("200", 0) for one in bursts))


def table(whole: Raw) -> str:
    """Return the report for people, in Markdown."""
    lines = head(whole, TARGETS)
    if "predict" in whole["parts"]:
        lines += ["", *_predict(whole["parts"]["predict"])]
    return "\n".join(lines) + "\n"


def _predict(raw: Raw) -> list[str]:
    """Return accepted requests a second, medians over the rounds, and what was not accepted."""
    count = raw.get("api_processes", 1)
    doors = "one API process" if count == 1 else f"{count} API processes"
    lines = [
        f"`/predict` with {doors}, accepted a second, medians of {len(raw['rounds'])} rounds; in "
        "brackets, requests without a 200.",
        "",
        "| Door | one picture | pictures apart | 50 at once | 1,000 at once |",
        "|---|---|---|---|---|",
    ]
    for name in (OURS, FLASK):
        made = [one[name] for one in raw["rounds"] if name in one]
        cells = [_cell([one[kind] for one in made]) for kind in KINDS if made]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _cell(made: list[Raw]) -> str:
    rate = statistics.median(one["accepted_per_s"] for one in made)
    failed = sum(one["requests"] - one["statuses"].get("200", 0) for one in made)
    return f"{rate:.0f} ({failed})"
