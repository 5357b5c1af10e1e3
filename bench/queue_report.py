"""Raw figures of the queue's bench to its summary and its table. Pure.

``docs/benchmarks.md`` defines every key of the summary; the definitions here are the same.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping

from bench.plan import Raw
from bench.queue_contenders import CONTENDERS, OURS
from bench.report import Summary, head
from bench.statistics import paired_ratio

TARGETS: Mapping[str, str] = {
    "process_vs_best": ">= 3",
    "enqueue_vs_best": ">= 1",
    "claim_p50_ms": "< 2",
    "claim_p99_ms": "< 10",
    "bytes_per_task": "<= 1024",
    "claim_growth": "< 2",
    "fairness": "<= 2",
}
"""The summary's keys, in order, with what each should be."""

CLAIM = "claim_of_16_ms"


def summary(parts: Mapping[str, Raw]) -> Summary:
    """Return every key; None where its part was not run."""
    process, large = parts.get("process", {}), parts.get("large", {})
    claim, fairness = parts.get("claim", {}).get("tcp", {}), parts.get("fairness", {})
    tasks = large.get("tasks")
    return {
        "process_vs_best": _against_best(process, "process_per_s"),
        "enqueue_vs_best": _against_best(process, "enqueue_per_s"),
        "claim_p50_ms": claim.get("p50"),
        "claim_p99_ms": claim.get("p99"),
        "bytes_per_task": large["used_memory"] / tasks if tasks else None,
        "claim_growth": large[CLAIM]["many"]["p50"] / large[CLAIM]["few"]["p50"]
        if CLAIM in large
        else None,
        "fairness": paired_ratio(fairness.get("beside", []), fairness.get("alone", [])),
    }


def _against_best(raw: Raw, figure: str) -> float | None:
    """Return the median over the rounds of ours / the highest of all peers in the same round."""
    rounds = raw.get("rounds", [])
    ours = [made.get(OURS, {}).get(figure) for made in rounds]
    best = [
        max((made.get(figure) or 0 for name, made in one.items() if _is_peer(name)), default=None)
        for one in rounds
    ]
    return paired_ratio(ours, best)


def _is_peer(name: str) -> bool:
    return not CONTENDERS[name].ours


def table(whole: Raw) -> str:
    """Return the report for people, in Markdown."""
    lines = head(whole, TARGETS)
    if "process" in whole["parts"]:
        lines += ["", *_process(whole["parts"]["process"])]
    return "\n".join(lines) + "\n"


_COLUMNS = (
    ("processed/s", "process_per_s", "{:,.0f}"),
    ("worker, us a task", "process_worker_us", "{:.0f}"),
    ("server, us a task", "process_server_us", "{:.0f}"),
    ("enqueued/s", "enqueue_per_s", "{:,.0f}"),
    ("client, us a task", "enqueue_client_us", "{:.0f}"),
    ("server, us a task", "enqueue_server_us", "{:.0f}"),
)


def _process(raw: Raw) -> list[str]:
    """Return medians over the rounds by contender."""
    lines = [
        f"Medians of {len(raw['rounds'])} rounds; us: processor time, microseconds.",
        "",
        f"| Queue | {' | '.join(title for title, _, _ in _COLUMNS)} | settings | failed |",
        "|---" * (len(_COLUMNS) + 3) + "|",
    ]
    for name, about in raw["contenders"].items():
        made = [one[name] for one in raw["rounds"] if name in one]
        cells = [_median(made, figure, form) for _, figure, form in _COLUMNS]
        versions = ", ".join(f"{one} {number}" for one, number in about["versions"].items())
        failed = sum("failed" in one for one in made)
        lines.append(
            f"| {name} | {' | '.join(cells)} | {about['settings']} ({versions}) | {failed} |"
        )
    return lines


def _median(made: list[Raw], figure: str, form: str) -> str:
    values = [one[figure] for one in made if figure in one]
    return form.format(statistics.median(values)) if values else "-"
