"""The console of a running stack, in a real browser: see, and act."""

from __future__ import annotations

import csv
import io
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, ViewportSize, expect

from scripts.running_stack import RunningStack, free_port, running_stack
from tests.browser.accessible import faults
from tests.browser.conftest import WAIT_MS
from tests.browser.console_rig import (
    HOOK_SECRET,
    VIEWS,
    Administrator,
    Receiver,
    admin_key,
    line_to,
    make_dead_letter,
    receiving,
    roll_back,
    sign_in,
    visit,
)
from tests.browser.documented import DocumentedApi

pytestmark = [pytest.mark.browser, pytest.mark.slow]

SIZES: dict[str, ViewportSize] = {
    "desktop": {"width": 1440, "height": 900},
    "phone": {"width": 390, "height": 844},
}
DESKTOP = SIZES["desktop"]


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def console_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def stack(
    tmp_path_factory: pytest.TempPathFactory, receiver: Receiver, console_port: int
) -> Iterator[RunningStack]:
    sets = [
        "workers=1",
        f"console_port={console_port}",
        f"alert_webhook_url={receiver.url}",
        f"alert_webhook_secret={HOOK_SECRET}",
        "alert_allow=127.0.0.1",
        f"alert_ports={receiver.url.split(':')[2].split('/')[0]}",
        "alert_slack_url=http://127.0.0.1:9/nobody",
    ]
    with running_stack(tmp_path_factory.mktemp("stack"), sets=sets) as stack:
        yield stack


@pytest.fixture(scope="module")
def key(stack: RunningStack) -> str:
    return admin_key(stack)


@pytest.fixture
def admin(browser: Browser, stack: RunningStack, key: str) -> Iterator[Administrator]:
    with visit(browser, stack.url, key, "live", viewport=DESKTOP) as admin:
        yield admin
        assert admin.errors == []


def ask(stack: RunningStack, prompt: str) -> dict[str, Any]:
    headers = {"Cache-Control": "no-store"}
    answer = httpx.post(
        f"{stack.url}v1/tasks", json={"prompt": prompt}, headers=headers, timeout=60
    )
    found: dict[str, Any] = answer.raise_for_status().json()
    return found


def until(what: Any, *, limit_s: float = WAIT_MS / 1000) -> Any:
    """Return what a call gives once it is true."""
    deadline = time.monotonic() + limit_s
    while not (found := what()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.1)
    return found


def workers(admin: Administrator) -> dict[str, str]:
    """Return the workers that live, with their states."""
    found = admin.asks("workers")["data"]
    return {one["id"]: one["state"] for one in found if one["state"] != "gone"}


@contextmanager
def nobody_works(admin: Administrator) -> Iterator[None]:
    """Drain every worker, so that what waits surely waits."""
    for name in workers(admin):
        admin.asks(f"workers/{name}/drain", "POST")
    until(lambda: set(workers(admin).values()) <= {"drained"})
    try:
        yield
    finally:
        for name in workers(admin):
            admin.asks(f"workers/{name}/undrain", "POST")
        until(lambda: "ready" in workers(admin).values())


def test_without_a_good_key_nothing_is_shown_and_the_key_stays_in_its_tab(
    browser: Browser, stack: RunningStack, key: str
) -> None:
    context = browser.new_context(locale="en-US")
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    page.goto(f"{stack.url}console")
    page.wait_for_selector("#admin-key")
    assert faults(page) == []
    for wrong, says in (
        (key[:-1] + ("A" if key[-1] != "A" else "B"), "was not accepted"),
        (admin_key(stack, "--scope", "infer"), "not the scope admin"),
    ):
        page.fill("#admin-key", wrong)
        page.press("#admin-key", "Enter")
        page.wait_for_selector(f".sign-in-wrong:has-text('{says}')")
        assert page.input_value("#admin-key") == ""
    page.fill("#admin-key", key)
    page.press("#admin-key", "Enter")
    page.wait_for_selector('#stream[data-state="live"]', state="attached")
    page.reload()
    page.wait_for_selector('#stream[data-state="live"]', state="attached")
    stored = page.evaluate("[JSON.stringify(localStorage), document.cookie, location.href].join()")
    assert key not in stored
    page.click("#sign-out")
    page.wait_for_selector("#admin-key")
    assert page.evaluate("JSON.stringify(sessionStorage)").find(key) == -1
    context.close()


def test_the_light_says_why_and_each_chart_shows_what_the_api_says(
    admin: Administrator, stack: RunningStack
) -> None:
    page = admin.page
    for number in range(4):
        ask(stack, f"How many circles? {number}")
    charts = page.locator(".chart")
    charts.first.wait_for()
    page.wait_for_selector('.chart[data-chart="latency"] .value b:text-matches("[0-9]")')
    known = {
        key
        for key in admin.asks("series?seconds=60")["columns"]
        if key != "at" and not key.startswith("gpu_")
    }
    page.click("#values summary")
    page.wait_for_selector("#values tbody tr")
    shown = page.evaluate("[...document.querySelectorAll('#values tr[data-key]')]"
                          ".map((row) => row.dataset.key)")  # fmt: skip
    assert known <= set(shown)
    now = admin.asks("now")
    colour = page.locator(".light").get_attribute("data-color")
    assert colour in ("green", "yellow", "red"), now
    assert page.locator(".reasons li").first.inner_text()
    limit = page.locator('#values tr[data-key="queue_length"] td').last.inner_text()
    assert limit == "20"
    assert page.locator('.chart[data-chart="queue_length"] .limit').inner_text() == "limit 20"


def test_a_paused_queue_turns_the_light_yellow_with_its_reason_in_both_languages(
    admin: Administrator, stack: RunningStack
) -> None:
    page = admin.page
    admin.goes_to("workers")
    page.click("#pause")
    expect(page.locator("dialog.dialog h2")).to_have_text("Pause the queue?")
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog.dialog", state="detached")
    assert admin.asks("queue")["drained"] in (False, 0)
    page.click("#pause")
    admin.agrees()
    page.wait_for_selector(".reasons:has-text('The queue is paused')")
    page.click('[data-language="zh"]')
    page.wait_for_selector(".reasons:has-text('队列已暂停')")
    assert page.locator("html").get_attribute("lang") == "zh-CN"
    page.click("#pause:has-text('恢复队列')")
    page.wait_for_selector(".reasons:not(:has-text('队列已暂停'))")
    page.click('[data-language="en"]')
    page.wait_for_selector(".light-word:has-text('e')")
    assert admin.asks("queue")["drained"] in (False, 0)


def test_the_charts_can_be_frozen_zoomed_and_asked_for_another_range(
    admin: Administrator,
) -> None:
    page = admin.page
    page.wait_for_selector(".chart canvas", state="attached")
    page.click("#freeze")
    assert page.locator("#freeze").get_attribute("aria-pressed") == "true"
    frozen = page.locator(".moment").inner_text()
    assert frozen.startswith("Frozen at ")
    figures = page.locator(".values").all_inner_texts()
    page.wait_for_timeout(2_500)  # two points come meanwhile, and nothing moves
    assert page.locator(".moment").inner_text() == frozen
    assert page.locator(".values").all_inner_texts() == figures
    page.click("#freeze")
    page.wait_for_function("document.querySelector('.moment').textContent === ''")
    with page.expect_response(re.compile(r"/v1/admin/series\?seconds=21600")) as asked:
        page.click("text='6 h'")
    assert asked.value.json()["step_s"] > 1
    page.wait_for_selector("input[value='21600']:checked", state="attached")
    page.click("text='5 min'")
    page.wait_for_selector(".chart canvas", state="attached")
    plot = page.locator('.chart[data-chart="cpu"] .u-over')
    box = plot.bounding_box()
    assert box is not None
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * 0.8, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.95, middle, steps=4)
    page.mouse.up()
    assert page.locator("#freeze").get_attribute("aria-pressed") == "true"


def test_one_cursor_is_shared_by_all_charts_and_moved_by_the_keyboard_too(
    admin: Administrator,
) -> None:
    page = admin.page
    page.wait_for_selector(".chart canvas", state="attached")
    page.wait_for_timeout(2_500)  # a few points to stand on
    page.focus("#charts")
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector(".moment:has-text('At ')")
    first = page.locator(".moment").inner_text()
    page.keyboard.press("ArrowLeft")
    page.wait_for_function(
        "(old) => document.querySelector('.moment').textContent !== old", arg=first
    )
    lines = page.evaluate(
        "[...document.querySelectorAll('.chart .u-cursor-x')].map((one) => one.style.transform)"
    )
    assert len(lines) > 10
    assert len({re.sub(r"\.\d+", "", one) for one in lines}) == 1
    page.keyboard.press("Escape")
    page.wait_for_function("document.querySelector('.moment').textContent === ''")


def test_a_cut_stream_is_said_the_data_age_and_it_comes_back_by_itself(
    browser: Browser, stack: RunningStack, key: str
) -> None:
    with line_to(stack.url) as line, visit(browser, line.url, key, "live") as admin:
        page = admin.page
        page.wait_for_selector(".chart canvas", state="attached")
        line.cut()
        page.wait_for_selector('#stream[data-state="cut"]')
        page.wait_for_selector('.shell[data-stale="true"]')
        page.wait_for_selector('.light[data-color="unknown"]')
        page.wait_for_selector("#stream:has-text('s old')")
        assert page.locator(".reasons li").inner_text().startswith("Nothing has been heard")
        line.mend()
        with page.expect_response(re.compile(r"/v1/admin/series")):  # what was missed
            page.wait_for_selector('#stream[data-state="live"]')
        page.wait_for_selector('.shell[data-stale="false"]')
        page.wait_for_selector('.light:not([data-color="unknown"])')


def test_a_worker_is_drained_undrained_and_restarted(admin: Administrator) -> None:
    page = admin.page
    admin.goes_to("workers")
    worker = admin.row("ready").first
    worker.wait_for()
    name = worker.locator(".two-lines span").first.inner_text()
    row = admin.row(name)
    row.get_by_role("button", name=f"Drain: {name}").click()
    assert "Nothing is lost" in page.locator(".dialog-detail").inner_text()
    admin.agrees()
    expect(row.locator(".pill")).to_have_text("drained", timeout=WAIT_MS)
    page.wait_for_selector(".reasons:has-text('is hung, drained or gone')")
    row.get_by_role("button", name=f"Undrain: {name}").click()
    expect(row.locator(".pill")).to_have_text("ready", timeout=WAIT_MS)
    before = next(one for one in admin.asks("workers")["data"] if one["id"] == name)
    row.get_by_role("button", name=f"Restart: {name}").click()
    admin.agrees()
    until(lambda: any(one["id"] == name and one["pid"] != before["pid"] and one["state"] == "ready"
                      for one in admin.asks("workers")["data"]), limit_s=240)  # fmt: skip
    expect(row.locator(".pill")).to_have_text("ready", timeout=WAIT_MS)
    deeds = [one["action"] for one in admin.asks("audit?limit=50")["data"]]
    assert {"worker.drain", "worker.undrain", "worker.restart"} <= set(deeds)


def test_the_number_of_workers_is_changed(admin: Administrator) -> None:
    page = admin.page
    admin.goes_to("workers")
    page.wait_for_selector("tbody tr")
    page.click("#scale")
    page.fill("#scale-count", "2")
    admin.agrees()
    until(lambda: admin.asks("workers")["stacks"][0]["wanted"] == 2)
    expect(admin.page.locator("tbody tr")).to_have_count(2, timeout=WAIT_MS)
    page.click("#scale")
    page.fill("#scale-count", "1")
    page.click("dialog.dialog[open] button[type=submit]")
    expect(page.locator("dialog.dialog h2")).to_have_text("From 2 workers to 1?")
    admin.agrees()
    until(lambda: admin.asks("workers")["stacks"][0]["wanted"] == 1)


def test_the_logs_level_is_lowered_for_a_while_and_put_back_by_the_keyboard(
    admin: Administrator,
) -> None:
    page = admin.page
    admin.goes_to("workers")
    button = page.locator("#log-level")
    expect(button).to_have_text("Log: info")
    button.press("Enter")
    expect(page.locator("#log-level-wanted")).to_be_focused()
    expect(page.locator("#log-level-for")).to_be_disabled()
    page.keyboard.type("debug")
    expect(page.locator("#log-level-for")).to_be_enabled()
    page.keyboard.press("Tab")
    page.keyboard.type("1 h")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")  # over the button that leaves
    page.keyboard.press("Enter")
    expect(button).to_have_text(re.compile(r"^Log: debug until \d"))
    told = admin.asks("log-level")
    assert (told["level"], told["configured"]) == ("debug", "info")
    assert 600 < told["until"] - time.time() <= 3_600
    button.click()
    page.select_option("#log-level-wanted", "configured")
    expect(page.locator("#log-level-for")).to_be_disabled()
    admin.agrees()
    expect(button).to_have_text("Log: info")
    assert admin.asks("log-level")["until"] is None
    deeds = [one for one in admin.asks("audit?limit=50")["data"] if one["action"] == "log.level"]
    assert [one["target"] for one in deeds] == ["configured", "debug"]


def test_a_waiting_task_is_found_its_way_drawn_and_cancelled(
    admin: Administrator, stack: RunningStack
) -> None:
    page = admin.page
    with nobody_works(admin):
        task = ask(stack, "What is written here?")
        admin.goes_to("tasks")
        page.fill("#task-search", task["id"][:12])
        row = admin.row(task["id"])
        row.wait_for()
        expect(row.locator(".pill")).to_have_text("queued")
        row.locator(".link").click()
        page.wait_for_selector('#task-pane[open] .timeline tr[data-stage="queued"]')
        page.click("#task-pane .button.harm")
        assert task["id"] in page.locator(".dialog-detail").inner_text()
        admin.agrees()
        expect(page.locator("#task-pane .pill")).to_have_text("cancelled", timeout=WAIT_MS)
        page.wait_for_selector('#task-pane .timeline tr[data-stage="cancelled"]')
        assert faults(page) == []
        page.keyboard.press("Escape")
        page.wait_for_selector("#task-pane", state="hidden")
        expect(row.locator(".pill")).to_have_text("cancelled", timeout=WAIT_MS)
    assert admin.asks(f"tasks/{task['id']}")["state"] == "cancelled"


def test_the_way_of_an_answered_task_is_drawn_stage_by_stage(
    admin: Administrator, stack: RunningStack
) -> None:
    page = admin.page
    task = ask(stack, "Which colour is the square in the middle?")
    until(lambda: admin.asks(f"tasks/{task['id']}")["state"] == "finished")
    admin.goes_to("tasks")
    page.click("#task-states >> text=finished")
    admin.row(task["id"]).locator(".link").click()
    page.wait_for_selector("#task-pane .timeline")
    drawn = page.evaluate(
        "[...document.querySelectorAll('.timeline tbody tr')].map((row) => row.dataset.stage)"
    )
    told = [one["stage"] for one in admin.asks(f"tasks/{task['id']}")["timeline"]]
    assert drawn == told
    assert {"queued", "leased", "prefill", "decode", "finished"} <= set(drawn)
    edges = page.evaluate("""[...document.querySelectorAll(".timeline .span")].map((one) =>
        [parseFloat(one.style.left), parseFloat(one.style.left) + parseFloat(one.style.width)])""")
    assert all(before[0] <= after[0] for before, after in pairwise(edges))
    assert all(0 <= left < right <= 101 for left, right in edges)


def test_a_dead_letter_is_replayed_and_another_forgotten(
    admin: Administrator, stack: RunningStack
) -> None:
    page = admin.page
    with nobody_works(admin):
        first, second = make_dead_letter(stack), make_dead_letter(stack)
        admin.goes_to("tasks")
        page.click("#task-states >> text=dead letter")
        row = admin.row(first)
        row.wait_for()
        assert row.locator("td.code", has_text="dead_letter").count() == 1
        row.locator(".link").click()
        page.wait_for_selector('#task-pane .timeline tr[data-stage="returned"]')
        assert "it fell ill" in page.locator("#task-pane").inner_text()
        page.click("#task-pane .pane-close")
        admin.row(second).get_by_role("button", name=f"Forget: {second}").click()
        admin.agrees()
        expect(admin.row(second)).to_have_count(0, timeout=WAIT_MS)
        row.get_by_role("button", name=f"Replay: {first}").click()
        expect(row).to_have_count(0, timeout=WAIT_MS)
    until(lambda: admin.asks(f"tasks/{first}")["state"] == "finished", limit_s=120)


def test_all_dead_letters_are_replayed_at_once(admin: Administrator, stack: RunningStack) -> None:
    page = admin.page
    with nobody_works(admin):
        letters = [make_dead_letter(stack) for _ in range(2)]
        admin.goes_to("tasks")
        page.click("#task-states >> text=dead letter")
        admin.row(letters[1]).wait_for()
        page.click("#replay-all")
        admin.agrees()
        page.wait_for_selector(".note:has-text('2 are back in the queue')")
        expect(page.locator("tbody tr")).to_have_count(0, timeout=WAIT_MS)


def test_the_canarys_share_is_moved_and_a_rollback_is_told_with_its_figures(
    admin: Administrator, stack: RunningStack
) -> None:
    page = admin.page
    admin.goes_to("canary")
    page.wait_for_selector(".canary-wanted:has-text('0%')")
    assert page.locator("#canary-apply").is_disabled()
    page.focus("#canary-share")
    for _ in range(7):
        page.keyboard.press("ArrowRight")
    page.click("#canary-apply")
    assert "7%" in page.locator("dialog.dialog h2").inner_text()
    page.keyboard.press("Escape")
    assert admin.asks("canary")["share"] == 0
    page.click("#canary-apply")
    admin.agrees()
    page.wait_for_selector(".note:has-text('The canary gets 7%')")
    assert admin.asks("canary")["share"] == 0.07
    admin.row("raised", "7%").wait_for()
    roll_back(stack, 0.07, "slow")
    row = admin.row("rolled back", "its answers take longer", "by itself")
    row.wait_for()
    assert "canary: 60 tasks, 1.7% failed, p95 4.6 s" in row.inner_text()
    page.wait_for_selector(".canary-wanted:has-text('0%')")
    page.wait_for_selector(".canary [role=status]:visible")
    assert admin.asks("audit?limit=5")["data"][0]["action"] == "canary.set"


def test_a_test_push_reaches_the_receiver_and_a_failed_one_says_why(
    admin: Administrator, receiver: Receiver
) -> None:
    page = admin.page
    admin.goes_to("alerts")
    taken = len(receiver.taken)
    page.click('[data-channel="webhook"] button')
    page.wait_for_selector('[data-channel="webhook"] [data-tone="good"]')
    assert len(receiver.taken) > taken
    page.click('[data-channel="slack"] button')
    page.wait_for_selector('[data-channel="slack"] [data-tone="bad"]')
    assert len(page.locator('[data-channel="slack"] [data-tone="bad"]').inner_text()) > 12


def test_alerts_are_silenced_for_a_while_and_heard_again(admin: Administrator) -> None:
    page = admin.page
    admin.goes_to("alerts")
    page.click("#new-silence")
    page.select_option("#silence-rule", "CpuBusy")
    page.fill("#silence-labels", "host=a, core=7")
    page.select_option("#silence-for", "900")
    page.fill("#silence-reason", "load test")
    admin.agrees()
    row = admin.row("host=a, core=7")
    row.wait_for()
    (kept,) = [one for one in admin.asks("alerts")["silences"] if one["reason"] == "load test"]
    assert (kept["rule"], kept["labels"]) == ("CpuBusy", {"host": "a", "core": "7"})
    assert 800 < kept["until_s"] - kept["made_s"] < 901
    row.get_by_role("button").click()
    expect(row).to_have_count(0, timeout=WAIT_MS)


def test_a_key_is_shown_once_rotated_and_revoked(admin: Administrator, stack: RunningStack) -> None:
    page = admin.page
    admin.goes_to("keys")

    def shown() -> str:
        page.wait_for_selector("#new-key-text")
        found = page.input_value("#new-key-text")
        admin.agrees()
        return found

    def works(text: str) -> bool:
        headers = {"Authorization": f"Bearer {text}"}
        return httpx.get(f"{stack.url}v1/admin/keys", headers=headers, timeout=60).is_success

    page.click("#new-key")
    page.fill("#key-label", "=till")
    page.uncheck("#scope-infer")
    page.uncheck("#scope-tasks")
    page.check("#scope-admin")
    page.fill("#key-days", "7")
    page.fill("#key-rate_per_s", "5")
    admin.agrees()
    first = shown()
    assert works(first)
    assert first not in page.content()
    row = admin.row("=till")
    assert "5 requests/s" in row.inner_text()
    with page.expect_download() as saved:
        page.click('[data-csv="forebay-keys"]')
    rows = list(csv.reader(io.StringIO(Path(saved.value.path()).read_text(encoding="utf-8-sig"))))
    assert [one for one in rows if "'=till" in one], "a spreadsheet would run it"
    row.get_by_role("button", name="Rotate: =till").click()
    page.fill("dialog input[type=number]", "0")
    admin.agrees()
    second = shown()
    assert second != first
    assert works(second)
    row.get_by_role("button", name="Revoke: =till").click()
    admin.agrees()
    expect(row.locator(".pill")).to_have_text("revoked", timeout=WAIT_MS)
    until(lambda: not works(first) and not works(second))


@pytest.mark.parametrize(
    ("view", "name", "head"),
    [
        ("live", "forebay-series", "queue_length"),
        ("workers", "forebay-workers", "state"),
        ("tasks", "forebay-tasks", "tenant"),
        ("alerts", "forebay-alerts", "rule"),
        ("keys", "forebay-limits", "Limit"),
        ("audit", "forebay-audit", "action"),
    ],
)
def test_every_view_can_be_had_as_csv(
    admin: Administrator, view: str, name: str, head: str
) -> None:
    admin.goes_to(view)
    admin.page.wait_for_selector("main .charts, main tbody", state="attached")
    with admin.page.expect_download() as saved:
        admin.page.click(f'[data-csv="{name}"]')
    assert saved.value.suggested_filename.startswith(name)
    rows = list(csv.reader(io.StringIO(Path(saved.value.path()).read_text(encoding="utf-8-sig"))))
    assert head in rows[0]
    assert all(len(row) == len(rows[0]) for row in rows)


def test_what_goes_wrong_is_said_with_its_mend_and_its_request(admin: Administrator) -> None:
    page = admin.page
    admin.goes_to("alerts")
    page.click("#new-silence")
    page.fill("#silence-reason", "x")
    page.route("**/v1/admin/alerts/silences", lambda route: route.fulfill(
        status=429, headers={"x-request-id": "req-7"},
        json={"error": {"code": "rate_limited", "message": "too fast", "type": "x"}}))  # fmt: skip
    admin.agrees()
    box = page.locator(".note.error-box")
    box.wait_for()
    for words in ("Too many requests at once", "rate_limited", "too fast", "Close other", "req-7"):
        assert words in box.inner_text()
    page.click(".note-close")
    assert box.count() == 0
    admin.errors.clear()  # the browser tells of the 429


@pytest.mark.parametrize(
    ("size", "language", "scheme"),
    [
        ("desktop", "en-US", "light"),
        ("desktop", "zh-CN", "dark"),
        ("phone", "zh-CN", "light"),
        ("phone", "en-US", "dark"),
    ],
)
def test_every_view_is_accessible_fits_and_is_wholly_in_one_language(
    browser: Browser, stack: RunningStack, key: str, size: str, language: str, scheme: str
) -> None:
    viewport = SIZES[size]
    options = {"locale": language, "color_scheme": scheme, "viewport": viewport}
    with visit(browser, stack.url, key, "live", **options) as admin:
        for view in VIEWS:
            admin.goes_to(view)
            admin.page.wait_for_selector("main .chart canvas, main tbody tr, main .none:visible")
            assert faults(admin.page) == [], view
            assert admin.page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
            if view == "keys":
                admin.page.click("#new-key")
                assert faults(admin.page) == [], "dialog"
                admin.page.keyboard.press("Escape")
            if language == "zh-CN":
                heading = admin.page.locator("main h1").inner_text()
                assert re.search(r"[\u4e00-\u9fff]", heading)
        assert admin.errors == []


def test_everything_is_reached_by_the_keyboard(admin: Administrator) -> None:
    page = admin.page
    page.wait_for_selector(".chart canvas", state="attached")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.tagName") == "H1"
    page.focus('nav a[data-place="workers"]')
    page.keyboard.press("Enter")
    page.wait_for_selector('main[data-place="workers"]')
    assert page.evaluate("document.activeElement.textContent") == "Workers"
    page.wait_for_selector("tbody tr button")
    page.focus("tbody tr button")
    page.wait_for_timeout(5_000)  # two refreshes: the focus stays on its button
    assert page.evaluate("document.activeElement.closest('tbody') !== null")


def test_on_its_own_port_the_console_is_met_at_the_root(
    browser: Browser, stack: RunningStack, console_port: int, key: str
) -> None:
    context = browser.new_context(locale="en-US")
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{console_port}/")
    page.fill("#admin-key", key)
    page.press("#admin-key", "Enter")
    page.wait_for_selector('#stream[data-state="live"]', state="attached", timeout=WAIT_MS)
    context.close()


def test_the_console_uses_the_documented_api_alone(
    browser: Browser, stack: RunningStack, key: str
) -> None:
    context = browser.new_context(locale="en-US", viewport=DESKTOP)
    admin = sign_in(context, stack.url, key)
    walk(admin)
    api = DocumentedApi(stack.url)
    assert len(admin.requested) > 60
    assert api.strangers(admin.requested) == set()
    assert not [url for _, url in admin.requested if key in url]
    context.close()


def walk(admin: Administrator) -> None:
    """See every view, and do something in each that does no harm."""
    page: Page = admin.page
    for view in VIEWS:
        admin.goes_to(view)
        page.wait_for_selector("main .chart canvas, main tbody tr, main .none:visible")
        for one in page.locator("main button.csv").all():
            with page.expect_download():
                one.click()
    admin.goes_to("alerts")
    page.click('[data-channel="webhook"] button')
    page.wait_for_selector('[data-channel="webhook"] [data-tone="good"]')
