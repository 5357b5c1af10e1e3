"""Raw figures of the engine's bench to its summary and its table. Pure.

``docs/benchmarks.md`` defines every key of the summary; the definitions here are the same.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping

from bench.compare import OURS, OURS_FP32
from bench.plan import Raw
from bench.report import Summary, head
from bench.statistics import best_of, growth_share, paired_ratio, relative_difference

TARGETS: Mapping[str, str] = {
    "burst50_small_vs_vllm": ">= 2",
    "burst50_small_fp32_vs_vllm": ">= 1",
    "burst50_small_vs_litserve": ">= 2.5",
    "ttft_small_vs_vllm": "<= 0.5",
    "burst50_tiny_vs_vllm": ">= 3",
    "burst50_tiny_vs_litserve": ">= 2.5",
    "latency1_tiny_vs_best": "< 1",
    "decode_growth_1_16": "< 0.5",
    "kv_on_off": ">= 5",
    "repeat_ttft": "<= 0.2",
    "int8_vs_fp32": ">= 1.6",
    "memory_growth": "< 0.02",
}
"""The summary's keys, in order, with what each should be."""


def summary(parts: Mapping[str, Raw]) -> Summary:
    """Return every key; None where its part was not run, or a server it needs was not there."""
    small, tiny = _Rounds(parts.get("burst_small")), _Rounds(parts.get("burst_tiny"))
    rate, burst = "requests_per_s", "burst50"
    return {
        "burst50_small_vs_vllm": small.ratio(burst, rate, OURS, "vllm"),
        "burst50_small_fp32_vs_vllm": small.ratio(burst, rate, small.fp32(), "vllm"),
        "burst50_small_vs_litserve": small.ratio(burst, rate, OURS, "litserve"),
        "ttft_small_vs_vllm": small.ratio("closed1", "ttft_p50_s", OURS, "vllm"),
        "burst50_tiny_vs_vllm": tiny.ratio(burst, rate, OURS, "vllm"),
        "burst50_tiny_vs_litserve": tiny.ratio(burst, rate, OURS, "litserve"),
        "latency1_tiny_vs_best": tiny.against_best("closed1", "latency_p50_s"),
        "decode_growth_1_16": _decode_growth(parts.get("decode")),
        "kv_on_off": _kv(parts.get("kv")),
        "repeat_ttft": _repeat(parts.get("repeat")),
        "int8_vs_fp32": small.int8_gain(),
        "memory_growth": _memory(parts.get("memory")),
    }


class _Rounds:
    """The rounds of one comparison, as series of a figure by server."""

    def __init__(self, raw: Raw | None) -> None:
        self._servers = raw["servers"] if raw else {}
        self._rounds = raw["rounds"] if raw else []

    def series(self, run: str, figure: str, server: str) -> list[float | None]:
        """Return a server's figure round by round; None where the run failed or was not made."""
        return [
            made[figure]
            if (made := results.get(server, {}).get(run)) and not made["failed"]
            else None
            for results in self._rounds
        ]

    def ratio(self, run: str, figure: str, ours: str | None, theirs: str) -> float | None:
        """Return the median over the rounds of ours / theirs."""
        if ours is None:
            return None
        return paired_ratio(self.series(run, figure, ours), self.series(run, figure, theirs))

    def against_best(self, run: str, figure: str) -> float | None:
        """Return the median over the rounds of ours / the lowest of all peers."""
        peers = [name for name in self._servers if not name.startswith(OURS)]
        best = best_of({name: self.series(run, figure, name) for name in peers})
        return paired_ratio(self.series(run, figure, OURS), best)

    def fp32(self) -> str | None:
        """Return which of our servers computed in fp32."""
        if OURS_FP32 in self._servers:
            return OURS_FP32
        return OURS if OURS in self._servers else None

    def int8_gain(self) -> float | None:
        """Return the burst's requests/s in INT8 over fp32; None unless the default is INT8."""
        default = self._servers.get(OURS, {}).get("quantization")
        if default != "int8" or OURS_FP32 not in self._servers:
            return None
        return self.ratio("burst50", "requests_per_s", OURS, OURS_FP32)


def _decode_growth(raw: Raw | None) -> float | None:
    if not raw or not {"1", "16"} <= raw["step_ms"].keys():
        return None
    return growth_share(raw["step_ms"]["1"], raw["step_ms"]["16"], 16)


def _kv(raw: Raw | None) -> float | None:
    return paired_ratio(raw["recomputed_s"], raw["cached_s"]) if raw else None


def _repeat(raw: Raw | None) -> float | None:
    if not raw:
        return None
    pictures = raw["pictures"]
    first = [one["first_s"] for one in pictures]
    return paired_ratio([one["other_question_s"] for one in pictures], first)


def _memory(raw: Raw | None) -> float | None:
    if not raw or "one" not in raw:
        return None
    return relative_difference(raw["one"]["peak_rss"], raw["many"]["peak_rss"])


def table(whole: Raw) -> str:
    """Return the report for people, in Markdown."""
    lines = head(whole, TARGETS)
    for part in ("burst_small", "burst_tiny"):
        if part in whole["parts"]:
            lines += ["", *_comparison(whole["parts"][part])]
    if "steps" in whole["parts"]:
        lines += ["", *_steps(whole["parts"]["steps"])]
    return "\n".join(lines) + "\n"


_COLUMNS = (
    ("requests/s", "requests_per_s", "{:.2f}"),
    ("tokens/s", "tokens_per_s", "{:.1f}"),
    ("TTFT P50, s", "ttft_p50_s", "{:.2f}"),
    ("TTFT P99, s", "ttft_p99_s", "{:.2f}"),
    ("TPOT P50, ms", "tpot_p50_ms", "{:.1f}"),
    ("latency P50, s", "latency_p50_s", "{:.2f}"),
    ("latency P99, s", "latency_p99_s", "{:.2f}"),
    ("median / last", "median_over_last", "{:.2f}"),
)


def _comparison(raw: Raw) -> list[str]:
    """Return medians over the rounds by run and server, then starts and memory."""
    names = [title for title, _, _ in _COLUMNS]
    lines = [
        f"The {raw['checkpoint']} checkpoint, medians of {len(raw['rounds'])} rounds:",
        "",
        f"| Run | Server | {' | '.join(names)} | failed |",
        "|---" * (len(names) + 3) + "|",
    ]
    for run in ("closed1", "closed8", "burst50"):
        for server in raw["servers"]:
            made = [r[server][run] for r in raw["rounds"] if run in r.get(server, {})]
            if made:
                cells = [_median(made, figure, form) for _, figure, form in _COLUMNS]
                failed = sum(one["failed"] for one in made)
                lines.append(f"| {run} | {server} | {' | '.join(cells)} | {failed} |")
    lines += ["", "| Server | ready, s | peak memory (PSS), MiB |", "|---|---|---|"]
    for server, about in raw["servers"].items():
        peaks = [one["peak_pss"] for r in raw["rounds"] for one in r.get(server, {}).values()]
        peak = f"{max(peaks) / 2**20:.0f}" if peaks else "-"
        lines.append(f"| {server} | {about['ready_s']:.1f} | {peak} |")
    return lines


def _median(made: list[Raw], figure: str, form: str) -> str:
    values = [one[figure] for one in made if one.get(figure) is not None]
    return form.format(statistics.median(values)) if values else "-"


def _steps(raw: Raw) -> list[str]:
    runs = {name: figures for name, figures in raw.items() if name != "about"}
    parts = list(next(iter(runs.values()))["split_s"])
    lines = [
        "Shares of the engine's step time:",
        "",
        f"| At once | {' | '.join(parts)} |",
        "|---" * (len(parts) + 1) + "|",
    ]
    for concurrency, figures in runs.items():
        total = sum(figures["split_s"].values())
        shares = " | ".join(f"{figures['split_s'][part] / total:.1%}" for part in parts)
        lines.append(f"| {concurrency} | {shares} |")
    return lines
