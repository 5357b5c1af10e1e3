"""The page of a running stack, in a real browser: ask, read, stop, be refused, change language.

Each test asks questions of its own: an equal one would be answered at once, from what was said.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, Route, expect

from forebay.config import PACKAGE_FOLDER
from scripts.running_stack import RunningStack
from tests.browser.conftest import WAIT_MS, Visit, open_page
from tests.browser.slow_worker import PIECES, frozen_workers, slow_worker

pytestmark = pytest.mark.browser

READ = 10
"""Samples that the page is asked about: the first of every skill in both languages."""

DROP = """([selector, bytes, name, type]) => {
    const file = new File([new Uint8Array(bytes)], name, {type});
    const data = new DataTransfer();
    data.items.add(file);
    const target = document.querySelector(selector);
    for (const kind of ["dragenter", "dragover", "drop"])
        target.dispatchEvent(new DragEvent(
            kind, {dataTransfer: data, bubbles: true, cancelable: true}));
}"""


def drop(visit: Visit, content: bytes, name: str, kind: str = "image/jpeg") -> None:
    visit.page.evaluate(DROP, ["#drop", list(content), name, kind])


def picture(sample: dict[str, str]) -> bytes:
    return (PACKAGE_FOLDER / "samples" / sample["file"]).read_bytes()


def ask_the_api(stack: RunningStack, sample: dict[str, str]) -> str:
    """Have a sample's question answered by a run of its own."""
    url = f"data:image/jpeg;base64,{base64.b64encode(picture(sample)).decode()}"
    parts = [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": sample["question"]},
    ]
    body = {"model": "glm-4v-flash", "messages": [{"role": "user", "content": parts}]}
    headers = {"Cache-Control": "no-store"}
    url = f"{stack.url}v1/chat/completions"
    reply = httpx.post(url, json=body, headers=headers, timeout=60)
    answer: str = reply.raise_for_status().json()["choices"][0]["message"]["content"]
    return answer.strip()


def test_a_dropped_picture_is_shown_and_its_question_answered_rightly(
    visit: Visit, stack: RunningStack, samples: list[dict[str, str]]
) -> None:
    """The page says what the API says, and nearly always the truth."""
    wanted = samples[:READ]
    right = 0
    for sample in wanted:
        drop(visit, picture(sample), sample["file"])
        assert visit.page.locator("#preview-name").inner_text() == sample["file"]
        visit.ask(sample["question"])
        visit.page.wait_for_selector("#stop", state="hidden")
        assert visit.outcome() == "done"
        read = visit.answer().strip()
        assert read == ask_the_api(stack, sample)
        right += read == sample["answer"]
    assert right >= READ - 2


def test_a_sample_brings_its_question_and_the_answer_is_held_to_the_expected_one(
    visit: Visit, samples: list[dict[str, str]]
) -> None:
    visit.page.click("#strip li:first-child button")
    visit.page.wait_for_selector("#preview:visible")
    first = visit.page.locator("#strip li:first-child button")
    assert first.get_attribute("aria-pressed") == "true"
    sample = next(one for one in samples if one["file"] == first.get_attribute("data-file"))
    assert visit.page.input_value("#question") == sample["question"]
    visit.page.click("#send")
    assert visit.outcome() == "done"
    assert visit.page.locator("#fact-expected").inner_text() == sample["answer"]
    right = visit.page.locator("#fact-expected").get_attribute("data-right")
    assert right == str(visit.answer().strip() == sample["answer"]).lower()


def test_the_figures_beside_the_answer_are_those_of_the_call(visit: Visit) -> None:
    with visit.page.expect_response("**/v1/tasks") as called:
        visit.ask("你好")
    assert visit.outcome() in ("done", "cut")
    request_id = called.value.headers["x-request-id"]
    assert visit.page.locator("#fact-request").inner_text() == request_id
    assert re.fullmatch(r"\d+\.\d\d s", visit.page.locator("#fact-first").inner_text())
    assert re.fullmatch(r"\d+ out, \d+ in", visit.page.locator("#fact-tokens").inner_text())


def test_stop_ends_a_waiting_question_and_the_next_one_is_answered(
    visit: Visit, stack: RunningStack
) -> None:
    with frozen_workers(stack):
        visit.ask("还要等多久？")
        visit.wait_for_state("waiting")
        visit.page.click("#stop")
        assert visit.outcome() == "stopped"
        assert visit.page.locator("#stop").is_hidden()
    visit.ask("还要等多久？")
    assert visit.outcome() in ("done", "cut")
    assert visit.answer()


def test_a_waiting_question_shows_its_place_in_both_languages(
    visit: Visit, stack: RunningStack
) -> None:
    with frozen_workers(stack):
        ahead = httpx.post(f"{stack.url}v1/tasks", json={"prompt": "hi"}).raise_for_status().json()
        visit.ask("前面有几个？")
        visit.wait_for_state("waiting")
        visit.page.wait_for_selector("#place:visible")
        assert "1 ahead" in visit.page.locator("#place").inner_text()
        visit.page.click('[data-language="zh"]')
        assert "前面还有 1 个" in visit.page.locator("#place").inner_text()
        httpx.delete(f"{stack.url}v1/tasks/{ahead['id']}").raise_for_status()
        visit.page.wait_for_selector("#place:has-text('下一个')")
    assert visit.outcome() in ("done", "cut")
    assert visit.page.locator("#place").is_hidden()
    assert visit.errors == []


def open_question(visit: Visit) -> dict[str, str] | None:
    found = visit.page.evaluate("sessionStorage.getItem('forebay.open')")
    return found and json.loads(found)


def test_a_reload_in_mid_answer_goes_on_to_the_exact_text(
    visit: Visit, stack: RunningStack
) -> None:
    with slow_worker(stack) as worker:
        visit.ask("What is the price now?")
        lease = worker.lease()
        worker.say(lease, *PIECES[:2])
        visit.page.wait_for_selector("#answer-text:has-text('12.50')")
        assert open_question(visit)["taskId"] == lease.task_id
        visit.page.reload()
        visit.page.wait_for_selector("#answer-text:has-text('12.50')")
        assert visit.state() == "streaming"
        assert visit.page.input_value("#question") == "What is the price now?"
        worker.say(lease, *PIECES[2:])
        worker.finish(lease, "".join(PIECES))
        assert visit.outcome() == "done"
    assert visit.answer() == "".join(PIECES)
    assert open_question(visit) is None
    visit.page.reload()
    visit.page.wait_for_selector('#status[data-state="ready"]')
    assert visit.state() == "empty"


def test_an_answer_that_starts_over_is_shown_once(visit: Visit, stack: RunningStack) -> None:
    """The worker gives the task back in mid-answer; the second delivery says something else."""
    with slow_worker(stack) as worker:
        visit.ask("What was the price?")
        first = worker.lease()
        worker.say(first, "Half of ano")
        visit.page.wait_for_selector("#answer-text:has-text('Half')")
        worker.release(first)
        second = worker.lease()
        worker.say(second, *PIECES)
        worker.finish(second, "".join(PIECES))
        assert visit.outcome() == "done"
    assert visit.answer() == "".join(PIECES)


def test_equal_questions_share_an_answer_and_the_page_says_so(
    visit: Visit, browser: Browser, stack: RunningStack
) -> None:
    """One is computed, one joins it in the middle, one comes after its end."""
    context = browser.new_context(locale="en-US")
    other = open_page(context, stack.url)
    question = "Is it cheap?"
    with slow_worker(stack) as worker:
        visit.ask(question)
        lease = worker.lease()
        worker.say(lease, *PIECES[:2])
        visit.page.wait_for_selector("#answer-text:has-text('12.50')")
        other.ask(question)
        other.page.wait_for_selector("#answer-text:has-text('12.50')")
        worker.say(lease, *PIECES[2:])
        worker.finish(lease, "".join(PIECES))
        for one, source in ((visit, ""), (other, "Shared with an equal question")):
            assert one.outcome() == "done"
            assert one.answer() == "".join(PIECES)
            assert one.page.locator("#source").is_visible() == bool(source)
            assert one.page.locator("#fact-source").inner_text() == source
            assert one.page.locator("#fact-tokens").inner_text() == "4 out, 5 in"
        other.ask(question)  # nobody works now
        assert other.outcome() == "done"
        assert other.answer() == "".join(PIECES)
        assert other.page.locator("#fact-source").inner_text() == "An equal question's answer"
        other.page.click('[data-language="zh"]')
        assert other.page.locator("#fact-source").inner_text() == "相同问题已有的回答"
    context.close()


def test_a_question_that_another_one_waits_for_may_be_stopped(
    visit: Visit, browser: Browser, stack: RunningStack
) -> None:
    """What was shown of the stopped one's answer is void for the other one."""
    context = browser.new_context(locale="en-US")
    other = open_page(context, stack.url)
    with slow_worker(stack) as worker:
        visit.ask("Is it dear?")
        first = worker.lease()
        worker.say(first, "Half of ano")
        visit.page.wait_for_selector("#answer-text:has-text('Half')")
        other.ask("Is it dear?")
        other.page.wait_for_selector("#answer-text:has-text('Half')")
        visit.page.click("#stop")
        assert visit.outcome() == "stopped"
        worker.drop(first)
        second = worker.lease()
        assert second.task_id != first.task_id
        worker.say(second, *PIECES)
        worker.finish(second, "".join(PIECES))
        assert other.outcome() == "done"
    assert other.answer() == "".join(PIECES)
    context.close()


def test_a_file_that_is_no_picture_is_refused_with_code_and_mend(visit: Visit) -> None:
    drop(visit, b"not a picture at all", "notes.png", "image/png")
    visit.ask("What is the price?")
    assert visit.outcome() == "failed"
    assert visit.page.locator("#error-code").inner_text() == "invalid_image"
    assert "JPEG, PNG, WEBP, GIF or BMP" in visit.page.locator("#error-mend").inner_text()
    assert visit.page.locator("#fact-request").inner_text()


def test_a_server_that_is_gone_is_said_so(visit: Visit) -> None:
    visit.page.context.set_offline(True)
    visit.ask("What is the price?")
    assert visit.outcome() == "failed"
    assert visit.page.locator("#error-code").inner_text() == "network"


def test_the_language_changes_every_text_and_is_remembered(visit: Visit) -> None:
    page = visit.page
    assert page.locator("html").get_attribute("lang") == "en"
    page.click('[data-language="zh"]')
    assert page.locator("html").get_attribute("lang") == "zh-CN"
    assert page.locator("#send").inner_text() == "提问"
    assert page.locator("#examples button").first.inner_text().startswith("图中价格")
    page.reload()
    assert page.locator("#send").inner_text() == "提问"


def test_the_theme_follows_the_system_until_it_is_chosen(
    browser: Browser, stack: RunningStack
) -> None:
    context = browser.new_context(color_scheme="dark", locale="en-US")
    page = open_page(context, stack.url).page
    assert page.locator("html").get_attribute("data-theme") == "dark"
    page.click("#theme")
    page.reload()
    assert page.locator("html").get_attribute("data-theme") == "light"
    context.close()


def test_enter_that_ends_a_chinese_word_asks_nothing(visit: Visit) -> None:
    visit.page.fill("#question", "价格")
    visit.page.evaluate("""() => document.querySelector("#question").dispatchEvent(
        new KeyboardEvent("keydown", {key: "Enter", isComposing: true, bubbles: true}))""")
    assert visit.state() == "empty"


def test_everything_can_be_done_with_the_keyboard(visit: Visit) -> None:
    page = visit.page
    page.focus("#strip li:first-child button")
    page.keyboard.press("Enter")
    page.wait_for_selector("#preview:visible")
    page.focus("#question")
    page.keyboard.press("Enter")
    assert visit.outcome() == "done"
    page.focus("#remove")
    page.keyboard.press("Enter")
    assert page.locator("#preview").is_hidden()


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_nothing_overflows_sideways(browser: Browser, stack: RunningStack, width: int) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800}, locale="en-US")
    page = open_page(context, stack.url).page
    page.wait_for_selector("#strip button")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    context.close()


def test_the_page_asks_its_own_server_only_and_breaks_no_policy(
    visit: Visit, stack: RunningStack
) -> None:
    visit.page.click("#strip li:first-child button")
    visit.page.wait_for_selector("#preview:visible")
    visit.page.click("#send")
    assert visit.outcome() in ("done", "cut")
    hosts = {
        urlsplit(url).netloc for url in visit.requested if not url.startswith(("blob:", "data:"))
    }
    assert hosts == {urlsplit(stack.url).netloc}
    assert visit.errors == []


def test_the_policy_forbids_what_the_page_does_not_need(visit: Visit) -> None:
    policy = visit.page.goto(visit.page.url)
    assert policy is not None
    rules = policy.headers["content-security-policy"]
    assert "script-src 'self'" in rules
    assert "unsafe" not in rules


@contextmanager
def without_its_desk(browser: Browser, stack: RunningStack) -> Iterator[tuple[Visit, list[Route]]]:
    """Open the page as a slow line shows it: usable, and the rest of it still on its way."""
    context = browser.new_context(locale="en-US")
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route("**/ui/desk.js", hold)
    page.goto(stack.url, wait_until="commit")
    page.wait_for_selector("#examples button")
    while not held:
        page.wait_for_timeout(50)
    yield Visit(page, [], []), held
    context.close()


def test_who_is_quicker_than_the_page_is_served_when_it_is_whole(
    browser: Browser, stack: RunningStack, samples: list[dict[str, str]]
) -> None:
    with without_its_desk(browser, stack) as (visit, held):
        page = visit.page
        page.click('[data-mode="review"]')
        expect(page.locator("#question")).not_to_have_value("")
        page.press("body", "m")  # back to asking
        expect(page.locator("#question")).to_have_value("")
        page.click('[data-language="zh"]')
        expect(page.locator("#send")).to_have_text("提问")
        expect(page.locator("#send")).to_be_disabled()
        drop(visit, picture(samples[0]), samples[0]["file"])
        visit.ask("What is on it, and is anybody quicker than the page?")
        page.click("#history")
        assert (visit.state(), page.locator("#history-dialog").is_visible()) == ("empty", False)
        for route in held:
            route.continue_()
        assert visit.outcome() == "done"
        assert page.locator("#preview-name").inner_text() == samples[0]["file"]
        assert "quicker than the page" in page.locator("#asked").inner_text()
        expect(page.locator("#history-dialog")).to_be_visible()


def test_a_page_whose_rest_does_not_come_says_that_the_server_is_gone(
    browser: Browser, stack: RunningStack
) -> None:
    with without_its_desk(browser, stack) as (visit, held):
        for route in held:
            route.abort()
        expect(visit.page.locator("#status")).to_have_attribute("data-state", "gone")
        expect(visit.page.locator("#status-text")).not_to_be_empty()
