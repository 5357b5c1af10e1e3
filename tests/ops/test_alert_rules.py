"""Each rule fires on what it is for, not before its time, and Prometheus judges the same."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from forebay.ops.alerts.prometheus import prometheus_rules
from forebay.ops.alerts.rules import Severity
from tests.ops.alert_rig import BY_NAME, EVERY_S, RULES, Given, firing, judged

RUNBOOK = "https://example.com/runbook"
ROOT = Path(__file__).resolve().parents[2]


def promtool() -> str | None:
    beside = Path(sys.executable).with_name("promtool")
    return str(beside) if beside.exists() else shutil.which("promtool")


needs_promtool = pytest.mark.skipif(
    promtool() is None, reason="no promtool: `make system` fetches Debian's"
)


def steady(value: float, minutes: float) -> list[float]:
    return [value] * (round(minutes * 60 / EVERY_S) + 1)


def rising(per_s: float, minutes: float, start: float = 0.0) -> list[float]:
    return [start + per_s * EVERY_S * i for i in range(round(minutes * 60 / EVERY_S) + 1)]


def queue(**places: Sequence[float]) -> list[Given]:
    return [
        Given("forebay_queue_tasks", {"place": p, "instance": "a"}, v) for p, v in places.items()
    ]


def gauge(name: str, values: Sequence[float | None], **labels: str) -> Given:
    return Given(name, {"instance": "a", **labels}, values)


def requests(values: Sequence[float], status: str = "200", route: str = "/predict") -> Given:
    labels = {"instance": "a", "route": route, "method": "POST", "status": status}
    return Given("forebay_http_requests_total", labels, values)


def latency(shares: Mapping[str, float], per_s: float, minutes: float) -> list[Given]:
    return [
        Given(
            "forebay_http_request_seconds_bucket",
            {"instance": "a", "route": "/predict", "le": le},
            rising(per_s * share, minutes),
        )
        for le, share in shares.items()
    ]


STALLED = [
    *queue(waiting=steady(5, 8), delayed=steady(0, 8)),
    gauge("forebay_queue_drained", steady(0, 8)),
    gauge("forebay_queue_ended_tasks", steady(17, 8)),
]
GPU = {"host": "h", "gpu": "0"}

# what fires -> the series, and the minutes before which it does not
SCENARIOS: dict[str, tuple[list[Given], float]] = {
    "QueueServerAway": ([gauge("forebay_queue_up", steady(0, 2))], 0.25),
    "NoWorkers": ([gauge("forebay_workers", steady(0, 2))], 0.75),
    "QueueStalled": (STALLED, 4.5),
    "QueueLong": (queue(waiting=steady(21, 2)), 0.75),
    "QueueOld": ([gauge("forebay_queue_oldest_seconds", rising(1.0, 6))], 5.0),
    "CanaryRolledBack": ([gauge("forebay_canary_rolled_back", [0.0, 0.0, 1.0, 1.0])], 0.25),
    "DeadLetters": (queue(dead=[0.0, 0.0, 1.0, 1.0]), 0.25),
    "WorkersFlapping": (
        [
            gauge(
                "forebay_worker_restarts_total",
                [*steady(0, 3), 1, 2, 3, 4, *steady(4, 1)],
                worker="w",
            )
        ],
        3.0,
    ),
    "ErrorsMany": ([requests(rising(9.8, 8)), requests(rising(0.2, 8), status="503")], 0.75),
    "LatencyHigh": (latency({"1.0": 0.5, "2.5": 0.9, "5.0": 1.0, "+Inf": 1.0}, 3.0, 8), 4.5),
    "RequestsRising": ([requests([*rising(1.0, 65), *rising(8.0, 10, start=3915.0)])], 60.0),
    "GpuBusy": ([gauge("forebay_gpu_use_ratio", steady(0.86, 6), **GPU)], 4.5),
    "GpuMemoryHigh": ([gauge("forebay_gpu_memory_use_ratio", steady(0.9, 6), **GPU)], 4.5),
    "GpuMemoryOverLimit": ([gauge("forebay_gpu_memory_use_ratio", [0.91, 0.93], **GPU)], 0.0),
    "CpuBusy": ([gauge("forebay_cpu_use_ratio", steady(0.71, 6), host="h")], 4.5),
    "MemoryHigh": ([gauge("forebay_memory_use_ratio", steady(0.81, 6), host="h")], 0.75),
    "DiskFull": ([gauge("forebay_disk_use_ratio", steady(0.91, 6), host="h")], 0.75),
    "CertificateExpiring": (
        [
            gauge(
                "forebay_certificate_expiry_timestamp_seconds", steady(14 * 86400 + 60, 2), file="f"
            )
        ],
        0.75,
    ),
    "KeyExpiring": (
        [gauge("forebay_api_key_expiry_timestamp_seconds", steady(14 * 86400 + 60, 2))],
        0.75,
    ),
    "AlertsUnjudged": ([gauge("forebay_alerts_judged_timestamp_seconds", steady(0, 8))], 3.75),
}

QUIET: dict[str, list[Given]] = {
    "QueueStalled": [
        *queue(waiting=steady(5, 8), delayed=steady(0, 8)),
        gauge("forebay_queue_drained", steady(0, 8)),
        gauge("forebay_queue_ended_tasks", [step // 6 for step in range(33)]),  # one in 90 s
    ],
    "QueueStalled when all that waits is delayed": [
        *queue(waiting=steady(5, 8), delayed=steady(5, 8)),
        *STALLED[2:],
    ],
    "ErrorsMany for probes": [
        requests(rising(9.0, 8)),
        requests(rising(9.0, 8), status="503", route="/ready"),
    ],
    "ErrorsMany at 1%": [requests(rising(9.9, 8)), requests(rising(0.1, 8), status="500")],
    "LatencyHigh": latency({"1.0": 0.5, "2.5": 0.96, "5.0": 1.0, "+Inf": 1.0}, 3.0, 8),
    "RequestsRising from little to less than one a second": [
        requests([*rising(0.01, 65), *rising(0.9, 10, start=39.0)])
    ],
    "GpuBusy for four minutes": [
        gauge("forebay_gpu_use_ratio", [*steady(0.99, 4), *steady(0.5, 4)], **GPU)
    ],
    "a counter that began anew": [requests([*rising(5.0, 4), *rising(5.0, 4)], status="200")],
}


def test_every_rule_has_a_scenario() -> None:
    assert set(SCENARIOS) == set(BY_NAME)


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_rule_fires_on_what_it_is_for_and_not_before_its_time(name: str) -> None:
    given, not_before_min = SCENARIOS[name]
    looks = judged(given)
    before = looks[: int(not_before_min * 60 / EVERY_S) + 1]
    assert name not in {one.rule for look in before for one in firing(look)}
    assert name in {one.rule for one in firing(looks[-1])}


@pytest.mark.parametrize("name", QUIET)
def test_nothing_fires_on_what_is_well(name: str) -> None:
    fired = {one.rule for look in judged(QUIET[name]) for one in firing(look)}
    assert fired == set()


@pytest.mark.parametrize("name", [*SCENARIOS, *QUIET])
@needs_promtool
def test_prometheus_judges_the_same_and_says_the_same(name: str, tmp_path: Path) -> None:
    given = SCENARIOS[name][0] if name in SCENARIOS else QUIET[name]
    (tmp_path / "rules.yml").write_text(prometheus_rules(RULES, RUNBOOK), encoding="utf-8")
    (tmp_path / "test.yml").write_text(json.dumps(promtool_test(given)), encoding="utf-8")
    done = subprocess.run(
        [promtool() or "", "test", "rules", "test.yml"],
        check=False, cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_promtool_finds_no_fault_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "rules.yml"
    file.write_text(prometheus_rules(RULES, RUNBOOK), encoding="utf-8")
    done = subprocess.run(
        [promtool() or "", "check", "rules", str(file)],
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(RULES)} rules found" in done.stdout


def promtool_test(given: Sequence[Given]) -> dict[str, object]:
    """Return promtool's test: at every fourth look, exactly what we find fires, with its words."""
    looks = judged(given)
    told = []
    for step in sorted({*range(0, len(looks), 4), len(looks) - 1}):
        for rule in RULES:
            told.append(
                {
                    "eval_time": f"{step * EVERY_S:.0f}s",
                    "alertname": rule.name,
                    "exp_alerts": [
                        {
                            "exp_labels": {**dict(one.labels), "severity": rule.severity.value},
                            "exp_annotations": {
                                "summary": rule.says("en", one.value, dict(one.labels)),
                                "summary_zh": zh(rule.name, one.value, dict(one.labels)),
                                "runbook_url": f"{RUNBOOK}#{rule.runbook}",
                            },
                        }
                        for one in firing(looks[step])
                        if one.rule == rule.name
                    ],
                }
            )
    series = [
        {
            "series": one.selector,
            "values": " ".join("_" if v is None else repr(v) for v in one.values),
        }
        for one in given
    ]
    return {
        "rule_files": ["rules.yml"],
        "evaluation_interval": "15s",
        "tests": [{"interval": "15s", "input_series": series, "alert_rule_test": told}],
    }


def zh(name: str, value: float, labels: dict[str, str]) -> str:
    """Return the Chinese words with the units that Prometheus' templates have."""
    english = BY_NAME[name].says("zh", value, labels)
    return english.replace(" 秒", " s").replace(" 天", " days")


def test_critical_is_kept_for_what_stops_service() -> None:
    critical = {one.name for one in RULES if one.severity is Severity.CRITICAL}
    assert critical == {
        "QueueServerAway", "NoWorkers", "QueueStalled", "WorkersFlapping", "ErrorsMany",
        "GpuMemoryOverLimit", "DiskFull",
    }  # fmt: skip
