"""The console's modules by themselves, in a real browser: words, series, lines of time, CSV."""

from __future__ import annotations

import csv
import io
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from playwright.sync_api import Browser, Page

from forebay.core.errors import all_errors
from forebay.core.lifecycle import State
from tests.browser.static_page import UI, open_static

pytestmark = pytest.mark.browser

CONSOLE = UI / "console"
SCRIPTS = sorted(CONSOLE.glob("*.js"))
PACKAGE = UI.parent
SLOW = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    page = open_static(browser)
    yield page
    page.context.close()


@pytest.fixture(scope="module")
def words(page: Page) -> dict[str, dict[str, Any]]:
    script = """async () => ({
        en: (await import("/ui/console/words.en.js")).en,
        zh: (await import("/ui/console/words.zh.js")).zh,
    })"""
    found: dict[str, dict[str, Any]] = page.evaluate(script)
    return found


def source() -> str:
    return "".join(path.read_text(encoding="utf-8") for path in SCRIPTS)


def test_both_languages_have_the_same_words_with_the_same_places(words: dict[str, Any]) -> None:
    places = re.compile(r"\{\w+\}")
    english, chinese = words["en"], words["zh"]
    assert english.keys() == chinese.keys()
    for table in english.keys() - {"errors"}:
        assert english[table].keys() == chinese[table].keys(), table
        for key, text in english[table].items():
            assert sorted(places.findall(text)) == sorted(places.findall(chinese[table][key])), key
    assert english["errors"].keys() == chinese["errors"].keys()


def test_every_word_is_asked_for_and_every_asked_one_is_there(words: dict[str, Any]) -> None:
    text = source()
    quoted = set(re.findall(r'"(\w+)"', text))
    assert set(re.findall(r'\btext\("(\w+)"', text)) <= words["en"]["texts"].keys()
    assert words["en"]["texts"].keys() <= quoted
    assert set(re.findall(r'\bword\("(\w+)"', text)) <= words["en"].keys()


def test_there_are_words_for_whatever_the_server_names(words: dict[str, Any]) -> None:
    english = words["en"]
    assert {state.value for state in State} <= english["taskStates"].keys()
    rules = tomllib.loads((PACKAGE / "ops/alerts/rules.toml").read_text(encoding="utf-8"))["rules"]
    assert {rule["name"] for rule in rules} <= english["alerts"].keys()
    assert english["errors"].keys() <= {cls.code for cls in all_errors()} | {"network"}
    api = "".join(path.read_text(encoding="utf-8") for path in (PACKAGE / "api").rglob("*.py"))
    deeds = set(re.findall(r'deed_of\(\s*services, caller, (?:f?)"([\w.]+)"', api))
    assert len(deeds) > 8
    assert deeds <= english["actions"].keys()


def test_every_series_is_on_a_chart_and_has_its_words(page: Page, words: dict[str, Any]) -> None:
    script = """async () => {
        const {GROUPS, KEYS, unitOf} = await import("/ui/console/panels.js");
        const panels = GROUPS.flatMap((one) => one.panels);
        return {keys: KEYS, units: KEYS.map(unitOf), panels: panels.map((one) => one.id),
            several: panels.filter((one) => one.keys.length > 1).flatMap((one) => one.keys)};
    }"""
    found = page.evaluate(script)
    assert len(found["keys"]) == len(set(found["keys"]))
    assert set(found["keys"]) == words["en"]["series"].keys()
    assert set(found["panels"]) == words["en"]["panels"].keys()
    assert set(found["several"]) == words["en"]["lines"].keys()


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_type_checked_small_and_never_write_markup(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("// @ts-check\n")
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|cssText", text
    )
    assert path.name.startswith("words.") or len(text.splitlines()) <= 330
    assert not re.search(r"https?://\w", text.replace("http://www.w3.org/2000/svg", ""))


def test_the_page_has_no_inline_script_or_style() -> None:
    html = (UI / "console.html").read_text(encoding="utf-8")
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", html)
    assert all(not body for body in re.findall(r"<script[^>]*>(.*?)</script>", html, re.DOTALL))


CELL = st.one_of(
    st.none(),
    st.integers(-(10**6), 10**6),
    st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=12),
    st.sampled_from(['a"b', "a,b", "a\nb", "a\r\nb", "=1+1", "+1", "-2", "@x", "\t=1", "-x"]),
)


@SLOW
@given(rows=st.lists(st.lists(CELL, min_size=2, max_size=2), max_size=6))
def test_a_csv_file_is_read_back_as_it_was_and_runs_nothing(
    page: Page, rows: list[list[Any]]
) -> None:
    script = """async (rows) => (await import("/ui/console/csv.js")).toCsv(["a", "b"], rows)"""
    text = page.evaluate(script, rows)
    read = list(csv.reader(io.StringIO(text, newline="")))
    assert read[0] == ["a", "b"]
    for wanted, row in zip(rows, read[1:], strict=True):
        for value, cell in zip(wanted, row, strict=True):
            plain = "" if value is None else str(value)
            assert cell in (plain, f"'{plain}")
            assert not re.match(r"[=@\t\r]|[+-](?![\d.]*$)", cell)


POINTS = """async ([series, rangeS, points]) => {
    const {Points} = await import("/ui/console/points.js");
    const kept = new Points();
    kept.load(series, rangeS);
    for (const [at, value] of points) kept.add({at, values: {a: value}});
    return {at: kept.at, a: kept.column("a"), b: kept.column("b")};
}"""


def series(step_s: int, rows: list[list[float | None]]) -> dict[str, Any]:
    return {"step_s": step_s, "columns": ["at", "a"], "rows": rows, "units": {}, "thresholds": {}}


def test_points_follow_each_other_and_a_gap_breaks_the_line(page: Page) -> None:
    told = series(1, [[100, 1.0], [101, 2.0]])
    got = page.evaluate(POINTS, [told, 60, [[102, 3.0], [101.5, 9.0], [110, 4.0]]])
    assert got["at"] == [100, 101, 102, 103, 110]
    assert got["a"] == [1, 2, 3, None, 4]
    assert got["b"] == []


@SLOW
@given(
    step_s=st.sampled_from([1, 30]),
    range_s=st.sampled_from([60, 3600]),
    gaps=st.lists(st.floats(0.01, 400, allow_nan=False), max_size=150),
)
def test_however_long_the_stream_goes_on_what_is_kept_is_bounded_and_in_order(
    page: Page, step_s: int, range_s: int, gaps: list[float]
) -> None:
    at, points = 1000.0, []
    for gap in gaps:
        at += gap
        points.append([at, 1.0])
    got = page.evaluate(POINTS, [series(step_s, [[1000, 0.0]]), range_s, points])
    assert got["at"] == sorted(set(got["at"]))
    assert len(got["a"]) == len(got["at"])
    assert got["at"][-1] == (points[-1][0] if points else 1000)
    assert got["at"][0] >= got["at"][-1] - range_s - step_s
    if step_s == 30:
        assert len(got["at"]) <= 2 * (range_s / step_s) + 4


def test_a_coarse_range_keeps_a_tip_that_moves(page: Page) -> None:
    told = series(30, [[0, 1.0], [30, 2.0]])
    got = page.evaluate(POINTS, [told, 21600, [[31, 3.0], [45, 4.0], [59, 5.0], [61, 6.0]]])
    assert got["at"] == [0, 30, 59, 61]
    assert got["a"] == [1, 2, 5, 6]


SPANS = """async ([steps, now]) => (await import("/ui/console/timeline.js")).spansOf(steps, now)"""


def step(stage: str, at: float) -> dict[str, Any]:
    return {"stage": stage, "at": at, "worker": None, "attempt": 1, "why": None}


def test_a_stage_lasts_until_the_next_and_the_last_one_until_now(page: Page) -> None:
    going = [step("queued", 10), step("leased", 12), step("decode", 13)]
    got = page.evaluate(SPANS, [going, 20])
    assert [(one["tookS"], one["open"]) for one in got] == [(2, False), (1, False), (7, True)]
    ended = page.evaluate(SPANS, [[*going, step("finished", 14)], 20])
    assert [(one["tookS"], one["open"]) for one in ended[-2:]] == [(1, False), (0, False)]


def test_times_and_amounts_are_written_for_people(page: Page) -> None:
    script = """async () => {
        const {seconds, withUnit} = await import("/ui/console/format.js");
        return [seconds(0), seconds(0.0042), seconds(0.35), seconds(1.236), seconds(42.31),
            seconds(125), seconds(3600), seconds(100000), withUnit(0.853, "share"),
            withUnit(11 * 2 ** 30, "bytes"), withUnit(12.44, "per_second"), withUnit(null, "share"),
            withUnit(12345, "count"), withUnit(61.4, "celsius")];
    }"""
    assert page.evaluate(script) == [
        *("0 s", "4.2 ms", "350 ms", "1.24 s", "42.3 s", "2 min 5 s", "1 h", "1 d 3 h", "85%"),
        *("11 GB", "12.4/s", "–", "12,345", "61 °C"),
    ]
