"""The parts of a point: its packed form, times, windows, the worst machine, the light."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.core.engine_load import EngineLoad
from forebay.ops.alerts.rules import Severity
from forebay.ops.live.columns import KEYS, UNITS
from forebay.ops.live.fleet_view import stacks_of, workers_of
from forebay.ops.live.gathering import Gathering, of_machines
from forebay.ops.live.light import OVER_S, Color, Excess, Progress, Seen, judge
from forebay.ops.live.members import STACK, WorkerCard, WorkerNow, worker_says
from forebay.ops.live.packing import mean_of, pack, unpack
from forebay.ops.live.ring import Rings
from forebay.ops.live.spread import Spread, quantile
from forebay.ops.live.window import Window
from forebay.ops.nvml import GpuReading
from forebay.ops.resources import MachineReading
from forebay.queue.fleet import DRAIN, RESTART, Member
from forebay.queue.live import COARSE_STEP_S
from forebay.queue.ports import QueueDepth

FLOATS = st.one_of(st.none(), st.floats(-(2.0**40), 2.0**40, width=32))
IDLE = QueueDepth(0, 0, 0, 0)


@given(st.fixed_dictionaries(dict.fromkeys(KEYS, FLOATS)))
def test_a_point_comes_back_as_it_was_kept(values: dict[str, float | None]) -> None:
    found = unpack(pack(values))
    assert found is not None
    for key, value in zip(KEYS, found, strict=True):
        given_value = values[key]
        if given_value is None:
            assert value is None
        else:
            assert value == pytest.approx(given_value, rel=1e-4, abs=1e-37)


def test_a_point_of_another_release_is_left() -> None:
    assert unpack("0" + pack({})[1:]) is None
    assert unpack(pack({})[:-5]) is None
    assert set(UNITS.values()) <= {
        "share", "bytes", "seconds", "per_second", "count", "celsius", "watts",
    }  # fmt: skip


@given(st.lists(st.floats(0.0011, 1500), min_size=1, max_size=200), st.floats(0.01, 1))
def test_a_quantile_is_off_by_less_than_a_bucket(times: list[float], share: float) -> None:
    spread = Spread()
    for one in times:
        spread.see(one)
    exact = sorted(times)[max(0, math.ceil(share * len(times)) - 1)]
    found = quantile(spread.counts, share)
    assert found is not None
    assert exact / 1.2501 <= found <= exact * 1.2501


def test_no_times_have_no_quantile() -> None:
    assert quantile(Spread().counts, 0.5) is None


@given(st.lists(st.lists(st.integers(0, 9), min_size=2, max_size=2), min_size=1, max_size=50))
def test_a_window_is_what_counters_grew_by_within_it(steps: list[list[int]]) -> None:
    window, counts, history = Window(5.0, 2), [0, 0], []
    for at, grown in enumerate(steps):
        counts = [a + b for a, b in zip(counts, grown, strict=True)]
        window.see(float(at), {"one": list(counts)})
        history.append(grown if at else [0, 0])  # the first look tells nothing yet
        last = history[-5:]
        assert window.total == [sum(one[i] for one in last) for i in range(2)]


def test_a_process_that_comes_or_goes_makes_no_jump() -> None:
    window = Window(10.0, 1)
    window.see(0.0, {"a": [100.0]})
    window.see(1.0, {"a": [103.0], "b": [5000.0]})
    window.see(2.0, {"b": [5001.0]})
    assert window.total == [4.0]
    assert window.rates(2.0, 0.0) == [2.0]


def gpu(index: int, use: float, used: int, total: int) -> GpuReading:
    return GpuReading(index, use, used, total, 50 + index, 100.0)


def says(state: str = "ready", *, life: float = 1.0, **more: Any) -> dict[str, Any]:
    card = WorkerCard("h", 7, life, "m", "0", "cpu", "int8")
    load = EngineLoad(**{"max_running": 4, "kv_blocks_total": 10, "kv_blocks_used": 2, **more})
    times = {name: Spread().counts for name in ("ttft", "tpot", "latency")}
    now = WorkerNow(state, 1, 2, 3, 4, 5, 0.0, load, times)
    reading = MachineReading("h", 0.5, 0.25, None, (gpu(0, 0.9, 6, 12), gpu(1, 0.2, 11, 12)))
    return worker_says(card, now, reading)


def member(name: str, words: dict[str, Any], silent_s: float = 0.0, wanted: str = "") -> Member:
    return Member(name, words, 1000.0 - silent_s, silent_s, wanted)


def stack(**workers: int | None) -> Member:
    words = {"kind": STACK, "host": "h", "pid": 1, "wanted": 2, "workers": workers}
    return member("stack-x", {**words, "group": "stable"})


def test_over_machines_and_gpus_it_is_the_worst_one() -> None:
    door = {"cpu": 0.1, "memory": 0.9, "disk": 0.3, "gpus": []}
    found = of_machines([door, says()["machine"]])
    assert (found["cpu"], found["memory"], found["disk"]) == (0.5, 0.9, 0.3)
    assert found["gpu_use"] == 0.9
    assert (found["gpu_memory_bytes"], found["gpu_memory_share"]) == (11, 11 / 12)
    assert of_machines([door])["gpu_use"] is None


def test_rates_are_sums_over_doors_and_times_are_of_the_workers() -> None:
    gathering = Gathering(0.0)
    for at in range(3):
        slow = says(running=4)
        slow["times"]["latency"][40] = at * 10
        doors = {name: {"counts": [at * 10, at, 0], "machine": None} for name in ("a", "b")}
        values = gathering.point(float(at), doors, [member("w", slow)], IDLE, 1)
    assert values["requests_rate"] == 20.0
    assert values["errors_rate"] == 2.0
    latency = values["latency_p95_s"]
    assert latency is not None
    assert 0.001 * 1.25**39 < latency <= 0.001 * 1.25**40
    assert values["ttft_p50_s"] is None
    assert (values["running"], values["batch_occupancy"], values["kv_use"]) == (4, 1.0, 0.2)
    assert set(values) == set(KEYS)


def test_a_worker_that_has_fallen_silent_counts_no_more() -> None:
    values = Gathering(0.0).point(1.0, {}, [member("w", says(running=4), silent_s=60)], IDLE, 0)
    assert (values["running"], values["cpu"]) == (0, None)


def states(*members: Member) -> dict[str, str]:
    return {one["id"]: one["state"] for one in workers_of(members, 10.0)}


def test_a_worker_is_starting_ready_hung_or_gone() -> None:
    hung = says()
    hung["still_s"] = 11.0
    assert states(
        stack(new=None, a=7),
        member("a", says()),
        member("b", says("drained")),
        member("c", hung),
        member("d", says(), silent_s=30),
    ) == {"a": "ready", "b": "drained", "c": "hung", "d": "gone", "new": "starting"}


def test_a_worker_whose_process_is_being_replaced_is_starting_not_gone() -> None:
    (found,) = workers_of([stack(a=8), member("a", says(), silent_s=5)], 10.0)
    assert (found["state"], found["pid"], found["stack"]) == ("starting", 8, "stack-x")


def test_what_is_ordered_is_told_and_a_restart_of_an_earlier_life_is_not() -> None:
    life = says()["life"]
    for wanted, told in (
        (DRAIN, "drain"),
        (f"{RESTART} {life}", "restart"),
        (f"{RESTART} another", None),
        ("", None),
    ):
        (found,) = workers_of([member("a", says(), wanted=wanted)], 10.0)
        assert found["ordered"] == told
    assert stacks_of([stack(a=7)]) == [
        {"id": "stack-x", "host": "h", "pid": 1, "workers": 1, "wanted": 2, "seen_at": 1000.0}
    ]


def seen(
    values: dict[str, float | None] | None = None, depth: QueueDepth = IDLE, **more: Any
) -> Seen:
    return Seen(
        {"workers": 1, **(values or {})},
        depth,
        more.pop("workers", ()),
        more.pop("firing", ()),
        **more,
    )


@pytest.mark.parametrize(
    ("look", "color", "reasons"),
    [
        (seen(), Color.GREEN, []),
        (seen({"workers": 0}), Color.RED, [("no_workers", "")]),
        (seen({"cpu": 0.7}), Color.GREEN, []),
        (seen({"cpu": 0.71}), Color.YELLOW, [("over", "cpu")]),
        (seen({"shed_rate": 0.1}), Color.YELLOW, [("shedding", "")]),
        (seen(depth=QueueDepth(0, 0, 0, 0, drained=True)), Color.YELLOW, [("queue_drained", "")]),
        (seen(stuck_s=31), Color.RED, [("stuck", "")]),
        (seen(workers=[{"id": "w", "state": "hung"}]), Color.YELLOW, [("worker", "w")]),
        (seen(workers=[{"id": "w", "state": "ready"}]), Color.GREEN, []),
        (
            seen({"cpu": 0.9}, firing=[("Bad", Severity.CRITICAL, 1.0)]),
            Color.RED,
            [("alert_critical", "Bad"), ("over", "cpu")],
        ),
        (seen(firing=[("So", Severity.WARNING, 1.0)]), Color.YELLOW, [("alert_warning", "So")]),
        (seen(firing=[("Old", None, 1.0)]), Color.YELLOW, [("alert_warning", "Old")]),
    ],
)
def test_the_light_has_a_colour_and_reasons_the_worst_first(
    look: Seen, color: Color, reasons: list[tuple[str, str]]
) -> None:
    light = judge(look, {"cpu": 0.7})
    assert light.color is color
    assert [(one.code, one.subject) for one in light.reasons] == reasons


def test_only_a_figure_that_stays_over_its_threshold_is_told() -> None:
    excess, limits = Excess(), {"cpu": 0.7, "gpu_use": 0.85}
    high: dict[str, float | None] = {"cpu": 0.9, "gpu_use": None}
    assert excess.lasting(high, limits, 0.0) == {}
    assert excess.lasting({"cpu": 0.6}, limits, 9.0) == {}
    assert excess.lasting(high, limits, 10.0) == {}
    assert excess.lasting(high, limits, 10.0 + OVER_S) == {"cpu": 0.7}


def test_nothing_that_moves_while_tasks_wait_is_stuck_and_an_idle_queue_is_not() -> None:
    progress, words = Progress(1.0), says()
    waiting = QueueDepth(3, 1, 0, 30)
    for at in range(5):
        stuck_s = progress.see(waiting, [member("w", words)], float(at))
    assert stuck_s == 4.0
    words["news"] += 1  # a token came
    assert progress.see(waiting, [member("w", words)], 5.0) == 0.0
    assert progress.see(waiting, [member("w", words)], 6.0) == 1.0
    assert progress.see(QueueDepth(3, 0, 0, 30, delayed=3), [], 7.0) == 0.0
    assert progress.see(IDLE, [], 8.0) == 0.0


def test_means_of_the_fine_ring_make_the_coarse_one() -> None:
    rings = Rings()
    for at in range(COARSE_STEP_S + 1):
        rings.fine.add([(f"{at * 1000}-0", pack({"cpu": float(at), "disk": None}))])
    mean = rings.due_mean(float(COARSE_STEP_S))
    assert mean is not None
    told = dict(zip(KEYS, mean, strict=True))
    assert told["cpu"] == pytest.approx(COARSE_STEP_S / 2)
    assert told["disk"] is None
    rings.coarse.add([(f"{COARSE_STEP_S * 1000}-0", pack(told))])
    assert rings.due_mean(COARSE_STEP_S + 5.0) is None
    assert rings.series(10, float(COARSE_STEP_S)).step_s == 1
    assert len(rings.series(10, float(COARSE_STEP_S)).rows) == 11
    assert len(rings.series(86_400, float(COARSE_STEP_S)).rows) == 1
    assert mean_of([[None, 1.0], [None, 3.0]]) == [None, 2.0]
