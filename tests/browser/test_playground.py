"""The playground of a running stack: everything that it offers, done as a person does it.

Each test asks questions of its own: an equal one would be answered at once, from what was said.
"""

from __future__ import annotations

import base64
import http.server
import io
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from forebay.admission.header import fitted_size
from forebay.admission.profile import ModelProfile
from forebay.config import PACKAGE_FOLDER
from forebay.core.image_grid import visual_tokens
from scripts.chromium import FLAGS, chromium_path
from scripts.running_stack import RunningStack, free_port, running_stack
from tests.browser.accessible import faults
from tests.browser.conftest import Visit, open_page
from tests.browser.documented import DocumentedApi
from tests.browser.slow_worker import PIECES, slow_worker

pytestmark = pytest.mark.browser

SAMPLES = PACKAGE_FOLDER / "samples"
PRICE = SAMPLES / "00-price-en.jpg"
REVIEW = SAMPLES / "08-review-en.jpg"
CAMERA = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start a Chromium with a camera that shows a test picture."""
    with sync_playwright() as playwright:
        path = chromium_path()
        if path is None and not Path(playwright.chromium.executable_path).exists():
            pytest.skip("no Chromium here: `make browser` fetches one, or name it in CHROMIUM")
        browser = playwright.chromium.launch(executable_path=path, args=[*FLAGS, *CAMERA])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def pictures() -> Iterator[str]:
    """Serve the samples from elsewhere; yield the address before a file's name."""
    files = partial(http.server.SimpleHTTPRequestHandler, directory=str(SAMPLES))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), files) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def own_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def stack(
    tmp_path_factory: pytest.TempPathFactory, pictures: str, own_port: int
) -> Iterator[RunningStack]:
    port = pictures.rstrip("/").rpartition(":")[2]
    fetching = ["fetch_urls=true", "fetch_allow=127.0.0.1", f"fetch_ports={port}"]
    sets = [*fetching, f"playground_port={own_port}"]
    with running_stack(tmp_path_factory.mktemp("stack"), sets=sets) as stack:
        yield stack


@pytest.fixture
def visit(browser: Browser, stack: RunningStack) -> Iterator[Visit]:
    """Open the page; whatever was done, it asked for what is documented, and nothing went wrong."""
    context = browser.new_context(
        locale="en-US",
        viewport={"width": 1280, "height": 860},
        permissions=["camera", "clipboard-read", "clipboard-write"],
    )
    asked: list[tuple[str, str]] = []
    context.on("request", lambda request: asked.append((request.method, request.url)))
    visit = open_page(context, stack.url)
    yield visit
    assert visit.errors == []
    assert DocumentedApi(stack.url).strangers(asked) == set()
    context.close()


def end(visit: Visit) -> str:
    visit.page.wait_for_selector("#stop", state="hidden")
    outcome = visit.outcome()
    assert outcome in ("done", "cut"), visit.page.locator("#error").inner_text()
    return outcome


def text(page: Page, selector: str) -> str:
    return page.locator(selector).inner_text()


def large(width: int, height: int) -> bytes:
    out = io.BytesIO()
    Image.effect_noise((width, height), 60).convert("RGB").save(out, "JPEG", quality=95)
    return out.getvalue()


def size_of(file: Path) -> tuple[int, int]:
    with Image.open(file) as opened:
        return opened.size


def give(page: Page, *files: Path | tuple[str, bytes]) -> None:
    payload: list[Any] = [
        {"name": one.name, "mimeType": "image/jpeg", "buffer": one.read_bytes()}
        if isinstance(one, Path)
        else {"name": one[0], "mimeType": "image/jpeg", "buffer": one[1]}
        for one in files
    ]
    page.set_input_files("#file", payload)


def test_several_pictures_are_priced_and_shrunk_before_they_are_sent(visit: Visit) -> None:
    page, photo = visit.page, large(3000, 2000)
    give(page, ("photo.jpg", photo), REVIEW)
    expect(page.locator("#tray button")).to_have_count(2)
    expect(page.locator("#preview-facts")).to_contain_text("3000 × 2000 → 1024 × 683 px")
    rules = ModelProfile.from_folder(PACKAGE_FOLDER / "demo_model", "demo", ()).rules
    small = size_of(REVIEW)
    tokens = [
        visual_tokens(high, wide, rules) for wide, high in (fitted_size(3000, 2000, 1024), small)
    ]
    expect(page.locator("#cost")).to_have_text(f"2 pictures, {sum(tokens)} visual tokens")
    page.click("#tray li:nth-child(2) button")
    expect(page.locator("#preview-name")).to_have_text(REVIEW.name)
    with page.expect_request("**/v1/tasks") as called:
        visit.ask("How much do the two cost?")
    end(visit)
    parts = json.loads(called.value.post_data or "")["messages"][0]["content"]
    assert [one["type"] for one in parts] == ["image_url", "image_url", "text"]
    first, second = (
        base64.b64decode(one["image_url"]["url"].partition(",")[2]) for one in parts[:2]
    )
    assert Image.open(io.BytesIO(first)).size == (1024, 683)
    assert len(first) < len(photo)
    assert second == REVIEW.read_bytes()
    page.click("#remove")
    expect(page.locator("#cost")).to_have_text(f"{tokens[0]} visual tokens")


def test_a_picture_is_added_to_those_that_were_asked_about_or_begins_a_new_question(
    visit: Visit,
) -> None:
    page = visit.page
    give(page, PRICE)
    visit.ask("What does it cost, please?")
    end(visit)
    with page.expect_file_chooser() as chooser:
        page.click("#add")
    chooser.value.set_files(str(REVIEW))
    expect(page.locator("#tray button")).to_have_count(2)
    visit.ask("What do they cost, please?")
    end(visit)
    give(page, REVIEW)
    expect(page.locator("#tray button")).to_have_count(1)
    expect(page.locator("#tray")).to_be_hidden()


PASTE = """(bytes) => {
    const data = new DataTransfer();
    data.items.add(new File([new Uint8Array(bytes)], "pasted.jpg", {type: "image/jpeg"}));
    document.dispatchEvent(new ClipboardEvent("paste", {clipboardData: data, bubbles: true}));
}"""


def test_a_picture_may_be_pasted(visit: Visit) -> None:
    visit.page.evaluate(PASTE, list(PRICE.read_bytes()))
    expect(visit.page.locator("#preview-name")).to_have_text("pasted.jpg")


def test_the_camera_takes_a_picture(visit: Visit) -> None:
    page = visit.page
    page.click("#camera")
    expect(page.locator("#camera-take")).to_be_enabled()
    page.click("#camera-take")
    expect(page.locator("#camera-dialog")).to_be_hidden()
    expect(page.locator("#preview-name")).to_have_text("camera.jpg")
    page.wait_for_function("document.querySelector('#preview-image').naturalWidth > 0")
    assert page.evaluate("document.querySelector('#camera-view').srcObject") is None


def test_a_camera_that_may_not_be_used_is_said_so(visit: Visit) -> None:
    page = visit.page
    page.evaluate("""() => navigator.mediaDevices.getUserMedia = () =>
        Promise.reject(new DOMException("no", "NotAllowedError"))""")
    page.click("#camera")
    expect(page.locator("#camera-fault")).to_contain_text("not allowed")
    expect(page.locator("#camera-take")).to_be_disabled()
    page.keyboard.press("Escape")
    expect(page.locator("#camera-dialog")).to_be_hidden()


def test_a_picture_may_be_named_by_its_address(visit: Visit, pictures: str) -> None:
    page = visit.page
    page.click("#by-url")
    page.fill("#url", "elsewhere")
    page.press("#url", "Enter")
    expect(page.locator("#url-wrong")).to_contain_text("https://")
    page.fill("#url", f"{pictures}{PRICE.name}")
    page.press("#url", "Enter")
    expect(page.locator("#elsewhere")).to_contain_text("127.0.0.1")
    visit.ask("How much is it?")
    end(visit)
    assert visit.answer() == "¥42.88"


def test_a_picture_is_looked_at_closely(visit: Visit) -> None:
    page = visit.page
    give(page, PRICE)
    page.click("#preview-image")
    expect(page.locator("#zoom-dialog")).to_be_visible()
    expect(page.locator("#zoom-scale")).to_have_text("100%")
    page.keyboard.press("+")
    expect(page.locator("#zoom-scale")).to_have_text("140%")
    page.keyboard.press("ArrowLeft")
    moved = page.evaluate("document.querySelector('#zoom-content').style.transform")
    assert re.match(r"translate\([1-9]", moved)
    page.mouse.move(300, 300)
    page.mouse.wheel(0, -500)
    page.wait_for_function("parseInt(document.querySelector('#zoom-scale').textContent) > 300")
    page.mouse.wheel(0, 5_000)
    expect(page.locator("#zoom-scale")).to_have_text("100%")
    page.keyboard.press("Escape")
    expect(page.locator("#zoom-dialog")).to_be_hidden()


BOXED = (
    "<think>The tag is **low**.</think>It is <|begin_of_box|>[[100,500,900,1000]]<|end_of_box|>."
)


def test_an_answer_is_markdown_its_thinking_is_folded_and_its_places_are_drawn(
    visit: Visit, stack: RunningStack
) -> None:
    page = visit.page
    give(page, PRICE)
    expect(page.locator("#cost")).to_be_visible()
    with slow_worker(stack) as worker:
        visit.ask("Where is the tag?")
        lease = worker.lease()
        worker.say(lease, BOXED[:18])
        expect(page.locator("#thinking-text")).to_be_visible()
        expect(page.locator("#thinking-title")).to_have_text("Thinking …")
        assert visit.answer() == ""
        worker.say(lease, BOXED[18:], "\n\n1. **one**\n2. <script>two</script>")
        expect(page.locator("#answer-text ol strong")).to_have_text("one")
        expect(page.locator("#thinking-text")).to_be_hidden()
        worker.finish(lease, BOXED)
        end(visit)
    assert "<script>two" in visit.answer()
    assert text(page, "#answer-text mark") == "[[100,500,900,1000]]"
    page.click("#thinking summary")
    assert text(page, "#thinking-text") == "The tag is low."
    wide, high = size_of(PRICE)
    box = page.locator("#boxes rect")
    shown = [float(box.get_attribute(name) or 0) for name in ("x", "y", "width", "height")]
    assert shown == [wide * 0.1, high * 0.5, wide * 0.8, high * 0.5]
    expect(page.locator("#found")).to_contain_text("1 place")
    image = page.locator("#preview-image").bounding_box()
    drawn = box.bounding_box()
    assert image is not None
    assert drawn is not None
    scale = min(image["width"] / wide, image["height"] / high)
    left = image["x"] + (image["width"] - scale * wide) / 2
    assert abs(drawn["x"] - left - 0.1 * scale * wide) < 4, "it lies where the picture has it"
    page.click("#zoom")
    expect(page.locator("#zoom-boxes rect")).to_have_count(1)
    page.click("#zoom-close")
    visit.ask("Is there another tag?")
    end(visit)
    expect(page.locator("#boxes rect")).to_have_count(0)


def test_the_figures_of_an_answer(visit: Visit, stack: RunningStack) -> None:
    with slow_worker(stack) as worker:
        visit.ask("What do you count?")
        lease = worker.lease()
        worker.say(lease, *PIECES[:1])
        visit.page.wait_for_selector("#answer-text:has-text('The tag')")
        visit.page.wait_for_timeout(300)
        worker.say(lease, *PIECES[1:])
        worker.finish(lease, "".join(PIECES))
        end(visit)
    page = visit.page
    first, total = (float(text(page, f"#fact-{one}").split()[0]) for one in ("first", "total"))
    assert 0 < first < total - 0.25
    speed = float(text(page, "#fact-speed").split()[0])
    assert speed == pytest.approx(3 / (total - first), rel=0.15), "three after the first of four"
    assert text(page, "#fact-tokens") == "4 out, 5 in"
    assert re.fullmatch(r"[0-9a-f]{32}", text(page, "#fact-request"))


def test_asking_again_has_the_answer_written_anew_and_edit_gives_the_question_back(
    visit: Visit,
) -> None:
    page = visit.page
    give(page, PRICE)
    visit.ask("How much is this one?")
    end(visit)
    visit.ask("How much is this one?")
    end(visit)
    expect(page.locator("#fact-source")).to_have_text("An equal question's answer")
    with page.expect_request("**/v1/tasks") as called:
        page.click("#retry")
    assert called.value.headers["cache-control"] == "no-store"
    end(visit)
    expect(page.locator("#source")).to_be_hidden()
    page.fill("#question", "something else")
    page.click("#edit")
    assert page.input_value("#question") == "How much is this one?"
    assert page.evaluate("document.activeElement.id") == "question"
    expect(page.locator("#preview-name")).to_have_text(PRICE.name)


def test_an_answer_goes_on_where_it_was_when_the_page_is_loaded_anew(
    visit: Visit, stack: RunningStack
) -> None:
    page = visit.page
    give(page, PRICE)
    expect(page.locator("#cost")).to_be_visible()
    with slow_worker(stack) as worker:
        visit.ask("What goes on?")
        lease = worker.lease()
        worker.say(lease, *PIECES[:2])
        page.wait_for_selector("#answer-text:has-text('12.50')")
        request = text(page, "#fact-request")
        with page.expect_request("**/events") as called:
            page.reload()
        assert re.fullmatch(r"\d+-\d+", called.value.headers["last-event-id"])
        expect(page.locator("#answer-text")).to_have_text("".join(PIECES[:2]))
        expect(page.locator("#preview-name")).to_have_text(PRICE.name)
        worker.say(lease, *PIECES[2:])
        worker.finish(lease, "".join(PIECES))
        assert end(visit) == "done"
    assert visit.answer() == "".join(PIECES)
    assert text(page, "#fact-request") == request
    assert float(text(page, "#fact-first").split()[0]) < float(text(page, "#fact-total").split()[0])


def test_a_question_that_was_left_goes_on_from_the_history(
    visit: Visit, stack: RunningStack
) -> None:
    """Another entry is looked at while the answer is written; nobody stopped it."""
    page = visit.page
    visit.ask("你叫什么？")
    end(visit)
    with slow_worker(stack) as worker:
        visit.ask("Who is left?")
        lease = worker.lease()
        worker.say(lease, *PIECES[:2])
        page.wait_for_selector("#answer-text:has-text('12.50')")
        page.click("#history")
        page.click(".past:has-text('你叫什么')")
        assert end(visit) in ("done", "cut")
        assert page.input_value("#question") == "你叫什么？"
        page.click("#history")
        page.click(".past:has-text('Who is left?')")
        expect(page.locator("#answer-text")).to_have_text("".join(PIECES[:2]))
        worker.say(lease, *PIECES[2:])
        worker.finish(lease, "".join(PIECES))
        assert end(visit) == "done"
    assert visit.answer() == "".join(PIECES)


def test_the_history_is_there_after_a_reload_searched_and_forgotten(visit: Visit) -> None:
    page = visit.page
    give(page, PRICE)
    visit.ask("How much was it?")
    end(visit)
    said = visit.answer()
    visit.ask("Anything else?")
    end(visit)
    page.reload()
    page.wait_for_selector('#status[data-state="ready"]')
    page.click("#history")
    expect(page.locator(".past")).to_have_count(2)
    page.fill("#history-search", "how MUCH")
    expect(page.locator(".past")).to_have_count(1)
    page.click(".past")
    expect(page.locator("#history-dialog")).to_be_hidden()
    assert visit.answer() == said
    assert page.input_value("#question") == "How much was it?"
    expect(page.locator("#preview-name")).to_have_text(PRICE.name)
    page.click("#history")
    page.click(".past-list li:first-child .forget")
    expect(page.locator(".past")).to_have_count(1)
    page.click("#history-clear")
    expect(page.locator(".past")).to_have_count(1)
    page.click("#history-clear")
    expect(page.locator(".past")).to_have_count(0)
    expect(page.locator("#history-empty")).to_be_visible()


def saved(page: Page, button: str) -> str:
    with page.expect_download() as download:
        page.click(button)
    return Path(download.value.path()).read_text(encoding="utf-8")


def test_an_answer_is_saved_as_json_and_as_markdown(visit: Visit) -> None:
    page = visit.page
    give(page, PRICE)
    visit.ask("How much to save?")
    end(visit)
    (entry,) = json.loads(saved(page, "#save-json"))
    assert entry["question"] == "How much to save?"
    assert entry["answer"].strip() == visit.answer()
    assert entry["request_id"] == text(page, "#fact-request")
    assert entry["pictures"] == [{"name": PRICE.name, "url": None, "bytes": PRICE.stat().st_size}]
    assert 0 < entry["first_token_seconds"] <= entry["seconds"]
    assert f"{entry['completion_tokens']} out, {entry['prompt_tokens']} in" == text(
        page, "#fact-tokens"
    )
    markdown = saved(page, "#save-markdown")
    assert markdown.startswith("## How much to save?\n")
    assert visit.answer() in markdown
    page.click("#history")
    assert saved(page, "#history-markdown") == markdown


def clipboard(page: Page, button: str) -> str:
    page.click(button)
    page.wait_for_selector(f"{button}:has-text('Copied')")
    return str(page.evaluate("navigator.clipboard.readText()"))


def test_what_is_copied_asks_the_same_again(visit: Visit, stack: RunningStack) -> None:
    page = visit.page
    give(page, PRICE)
    visit.ask("How much to copy?")
    end(visit)
    assert clipboard(page, "#copy-answer") == visit.answer()
    assert clipboard(page, "#copy") == text(page, "#fact-request")
    run = partial(
        subprocess.run, cwd=SAMPLES, capture_output=True, text=True, timeout=120, check=False
    )
    done = run(["sh", "-euc", clipboard(page, "#copy-curl")])
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)["choices"][0]["message"]["content"]
    assert said.strip() == visit.answer()
    done = run([sys.executable, "-c", clipboard(page, "#copy-python")])
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == visit.answer()


def test_a_person_decides_upon_the_models_opinion(visit: Visit, stack: RunningStack) -> None:
    page = visit.page
    give(page, REVIEW)
    page.click('[data-mode="review"]')
    assert page.input_value("#question") == "Review this product picture"
    page.click("#send")
    end(visit)
    image = f"data:image/jpeg;base64,{base64.b64encode(REVIEW.read_bytes()).decode()}"
    body = {"prompt": "Review this product picture", "image": image, "template": "review"}
    told = httpx.post(f"{stack.url}v1/multimodal/inference", json=body, timeout=120).json()
    shown = page.locator("#opinion-result")
    assert shown.get_attribute("data-result") == told["result"]
    assert page.locator("#opinion-reasons li").all_inner_texts() == told["reasons"]
    assert text(page, "#opinion-confidence") == f"{100 * told['confidence']:.1f}% sure"
    page.fill("#verdict-note", "the label is turned away")
    page.click("#reject")
    expect(page.locator("#verdict-saved")).to_have_text("Kept: rejected")
    (entry,) = json.loads(saved(page, "#save-json"))
    assert entry["review"]["result"] == told["result"]
    assert (entry["verdict"]["decision"], entry["verdict"]["note"]) == (
        *("reject", "the label is turned away"),
    )
    command = clipboard(page, "#copy-curl")
    done = subprocess.run(
        ["sh", "-euc", command], cwd=SAMPLES, capture_output=True, timeout=120, check=True
    )
    assert json.loads(done.stdout)["result"] == told["result"]
    page.reload()
    page.wait_for_selector('#status[data-state="ready"]')
    page.keyboard.press("h")
    page.click(".past")
    expect(page.locator("#reject")).to_have_attribute("aria-pressed", "true")
    assert page.input_value("#verdict-note") == "the label is turned away"
    page.click('[data-language="zh"]')
    expect(page.locator("#verdict-saved")).to_have_text("已保存：拒绝")
    assert page.input_value("#question") == "请审核这张商品图"


def test_keys_do_things_unless_they_are_turned_off_or_something_is_typed(visit: Visit) -> None:
    page = visit.page
    give(page, PRICE, REVIEW)
    expect(page.locator("#preview-name")).to_have_text(PRICE.name)
    page.keyboard.press("ArrowRight")
    expect(page.locator("#preview-name")).to_have_text(REVIEW.name)
    page.keyboard.press("z")
    expect(page.locator("#zoom-dialog")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("m")
    expect(page.locator('[data-mode="review"]')).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("m")
    before = page.locator("html").get_attribute("data-theme")
    page.keyboard.press("t")
    assert page.locator("html").get_attribute("data-theme") != before
    page.keyboard.press("/")
    page.keyboard.type("how much? t h z")
    assert page.input_value("#question") == "how much? t h z"
    page.keyboard.press("Control+Enter")
    end(visit)
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("e")
    assert page.evaluate("document.activeElement.id") == "question"
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("?")
    page.locator("#help-single").uncheck()
    page.click("#help-close")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("h")
    expect(page.locator("#history-dialog")).to_be_hidden()
    page.reload()
    page.wait_for_selector('#status[data-state="ready"]')
    page.keyboard.press("h")
    expect(page.locator("#history-dialog")).to_be_hidden()


def test_the_page_has_a_port_of_its_own(
    browser: Browser, stack: RunningStack, own_port: int
) -> None:
    url = f"http://127.0.0.1:{own_port}/"
    assert f"The playground is at {url}" in stack.log.read_text()
    context = browser.new_context(locale="en-US")
    visit = open_page(context, url)
    visit.ask("Which port is this?")
    end(visit)
    assert {one.split("/")[2] for one in visit.requested} == {f"127.0.0.1:{own_port}"}
    context.close()


LOOKS = [
    ("en-US", 1280, "light"),
    pytest.param("zh-CN", 1280, "dark", marks=pytest.mark.slow),
    pytest.param("en-US", 390, "dark", marks=pytest.mark.slow),
    ("zh-CN", 390, "light"),
]


@pytest.mark.parametrize(("locale", "width", "scheme"), LOOKS)
def test_everybody_can_use_it(
    browser: Browser, stack: RunningStack, locale: str, width: int, scheme: Any
) -> None:
    """In both languages, on a desk and on a phone: no fault of axe's in any state, no overflow."""
    context = browser.new_context(
        locale=locale, viewport={"width": width, "height": 844}, color_scheme=scheme,
        permissions=["camera"], has_touch=width < 600, reduced_motion="reduce",
    )  # fmt: skip
    visit = open_page(context, stack.url)
    page = visit.page
    wrong: dict[str, Any] = {}

    def look(state: str) -> None:
        wrong[state] = faults(page)
        overflow = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        if overflow > 0:
            wrong[state].append(f"{overflow} px too wide")

    page.wait_for_selector("#strip button")
    look("empty")
    give(page, PRICE, REVIEW)
    page.wait_for_selector("#cost:visible")
    page.click("#by-url")
    look("pictures")
    visit.ask(f"How does it look on {width} px in {locale}?")
    end(visit)
    look("answered")
    opened = ["history", "camera", "zoom", *(["help"] if width > 600 else [])]
    for name in opened:
        page.click(f"#{name}")
        page.wait_for_selector(f"#{name}-dialog[open]")
        look(name)
        page.keyboard.press("Escape")
    page.click('[data-mode="review"]')
    page.click("#send")
    page.wait_for_selector("#verdict:visible")
    look("reviewed")
    page.context.set_offline(True)
    page.click("#retry")
    assert visit.outcome() == "failed"
    look("failed")
    assert {state: found for state, found in wrong.items() if found} == {}
    context.close()
