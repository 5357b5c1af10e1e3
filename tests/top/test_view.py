"""Frames of ``forebay top``: of every size, in both languages, whatever the server says."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from forebay.top.state import Deed, TopState
from forebay.top.view import CHARTS, LEAST_COLUMNS, LEAST_LINES, frame, spark
from forebay.top.words import WORDS, Language, language_of, reason_text, value_text

KEYS = [key for pair in CHARTS for key in pair]
WILD = st.text(max_size=60)
VALUES = st.none() | st.floats(0, 1e15, allow_nan=False)
POINTS = st.fixed_dictionaries(
    {
        "at": st.floats(0, 2e9),
        "light": st.fixed_dictionaries(
            {
                "color": st.sampled_from(["green", "yellow", "red"]),
                "reasons": st.lists(
                    st.fixed_dictionaries(
                        {
                            "code": st.sampled_from([*WORDS["en"], "unknown"]),
                            "subject": WILD,
                            "value": VALUES,
                            "limit": VALUES,
                        }
                    ),
                    max_size=3,
                ),
            }
        ),
        "values": st.dictionaries(st.sampled_from(KEYS), VALUES),
    }
)
WORKERS = st.lists(
    st.fixed_dictionaries({"id": WILD, "state": WILD, "leases": st.integers(0, 99), "model": WILD}),
    max_size=20,
)
ALERTS = st.lists(
    st.fixed_dictionaries(
        {
            "key": WILD,
            "state": st.sampled_from(["firing", "pending"]),
            "severity": st.sampled_from(["critical", "warning"]),
            "silenced": st.booleans(),
            "text": st.dictionaries(st.sampled_from(["en", "zh"]), WILD),
        }
    ),
    max_size=12,
)


def drawn(state: TopState, width: int, height: int, language: Language = "en") -> list[str]:
    """Return the lines that a terminal of this size gets."""
    out = io.StringIO()
    console = Console(file=out, width=width, height=height, highlight=False, emoji=False)
    console.print(frame(state, console, language, "http://127.0.0.1:8080"))
    return out.getvalue().removesuffix("\n").split("\n")


@given(
    POINTS, WORKERS, ALERTS, st.sampled_from(["en", "zh"]),
    st.integers(20, 200), st.integers(4, 60), st.none() | WILD,
)  # fmt: skip
def test_a_frame_fits_its_terminal_whatever_is_told(
    point: dict[str, Any],
    workers: list[dict[str, Any]],
    alerts: list[dict[str, Any]],
    language: Language,
    width: int,
    height: int,
    away: str | None,
) -> None:
    state = TopState(alerts=alerts)
    state.see_workers(workers)
    state.see_point(point)
    state.away = away
    lines = drawn(state, width, height, language)
    if width < LEAST_COLUMNS or height < LEAST_LINES:
        assert WORDS[language]["small"].split()[0] in " ".join(lines)
        return
    assert len(lines) == height
    assert max(map(cell_len, lines)) <= width
    assert not any(char in line for line in lines for char in "\x1b\x9b\r\t")


POINT = {
    "at": 0,
    "light": {
        "color": "red",
        "reasons": [
            {"code": "over", "subject": "cpu", "value": 0.97, "limit": 0.7},
            {"code": "alert_critical", "subject": "NoWorkers", "value": None, "limit": None},
        ],
    },
    "values": {"queue_length": 12345, "oldest_age_s": 90, "ttft_p95_s": 0.25, "kv_use": 0.5},
}


def test_a_terminal_of_80_by_24_shows_all_that_matters() -> None:
    state = TopState(alerts=[{"state": "firing", "severity": "critical", "text": {"en": "Alas."}}])
    state.see_workers([{"id": "worker-a", "state": "ready", "leases": 3, "kv_use": 0.4}])
    state.see_point(POINT)
    text = "\n".join(drawn(state, 80, 24))
    for told in (
        "RED", "CPU is 97%, over 70%; alert NoWorkers", "12.3k", "2 min", "250 ms", "50%",
        "> worker-a", "3 tasks", "KV 40%", "Alas.", "d drain",
    ):  # fmt: skip
        assert told in text, told
    chinese = "\n".join(drawn(state, 80, 24, "zh"))
    assert "红灯" in chinese
    assert "CPU 为 97%，超过 70%" in chinese


def test_every_word_is_there_in_both_languages() -> None:
    assert set(WORDS["en"]) == set(WORDS["zh"])
    assert set(KEYS) <= set(WORDS["en"])


def test_draining_is_asked_about_first() -> None:
    state = TopState()
    state.see_workers([{"id": "a"}, {"id": "b"}, {"id": "c"}])
    assert state.press("down") is None
    assert state.press("d") is None
    assert "Drain b?" in "\n".join([*drawn(state, 80, 24)])
    assert state.press("n") is None
    assert state.asked is None
    state.press("d")
    assert state.press("y") == Deed("drain", "b")
    assert state.press("u") == Deed("undrain", "b")
    state.see_workers([{"id": "c"}])
    assert state.chosen == "c"
    state.press("q")
    assert state.over


def test_without_a_worker_there_is_nothing_to_drain() -> None:
    state = TopState()
    for key in ("d", "u", "up", "down"):
        assert state.press(key) is None
    assert state.asked is None


@pytest.mark.parametrize(
    ("told", "language"),
    [
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "C"}, "en"),
        ({"LC_MESSAGES": "zh_TW", "LANG": "de_DE"}, "zh"),
        ({}, "en"),
    ],
)
def test_the_language_is_the_terminals(told: dict[str, str], language: str) -> None:
    assert language_of(told) == language


def test_values_and_reasons_are_told_with_their_units() -> None:
    assert value_text("gpu_memory_bytes", 11 * 2**30) == "11.0 GiB"
    assert value_text("requests_rate", 2.34) == "2.3/s"
    assert value_text("cpu", None) == "-"
    reason = {"code": "stuck", "subject": "", "value": 45.0, "limit": None}
    assert reason_text(reason, WORDS["en"]) == "tasks wait and nothing has moved for 45.0 s"
    assert reason_text({"code": "new_code", "subject": "x"}, WORDS["en"]) == "new_code x"


def test_a_line_of_bars_is_as_high_as_its_values() -> None:
    bars = " .:-=+*#@"
    assert spark([0, 1, 2, None], 6, bars, share=False) == "  .=@ "
    assert spark([0.5, 1.0], 2, bars, share=True) == "=@"
    assert spark([], 3, bars, share=False) == "   "
