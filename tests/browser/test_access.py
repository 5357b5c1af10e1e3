"""A stack that asks for keys: what its page does, and what docs/access.md tells one to type."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from forebay.config import load_settings
from scripts.running_stack import RunningStack, running_stack
from tests.browser.conftest import WAIT_MS

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = ("access.md", "access.zh-CN.md")
ADDRESS = "http://127.0.0.1:8080/"
LIMIT_S = 300
BIN = Path(sys.executable).parent
BETWEEN = "=== next ==="


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    with running_stack(tmp_path_factory.mktemp("stack"), sets=["auth=keys"]) as stack:
        yield stack


def environment(stack: RunningStack) -> dict[str, str]:
    kept = {key: val for key, val in os.environ.items() if not key.startswith("FOREBAY_")}
    return {
        **kept,
        "PATH": f"{BIN}{os.pathsep}{kept.get('PATH', '')}",
        "FOREBAY_CONFIG": "",
        "FOREBAY_DATA_DIR": str(stack.data_dir),
    }


def make_key(stack: RunningStack, *options: str) -> str:
    command = [str(BIN / "forebay"), "keys", "create", "test", *options]
    done = subprocess.run(
        command, check=True, env=environment(stack), capture_output=True, text=True, timeout=LIMIT_S
    )
    return done.stdout.strip()


@pytest.fixture
def page(browser: Browser, stack: RunningStack) -> Iterator[Page]:
    context = browser.new_context(locale="en-US", viewport={"width": 1280, "height": 860})
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    page.goto(stack.url)
    yield page
    context.close()


def give(page: Page, key: str) -> None:
    page.wait_for_selector("#key-dialog[open]")
    page.fill("#key", key)
    page.press("#key", "Enter")


@pytest.mark.browser
def test_the_page_asks_for_a_key_until_it_has_a_good_one_and_then_answers(
    page: Page, stack: RunningStack
) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    key = make_key(stack)
    page.wait_for_selector("#key-dialog[open]")
    assert page.locator("#key-wrong").is_hidden()
    give(page, key[:-1] + ("A" if key[-1] != "A" else "B"))
    page.wait_for_selector("#key-wrong:visible")
    assert page.input_value("#key") == ""
    give(page, key)
    page.wait_for_selector('#status[data-state="ready"]')
    page.fill("#question", "你好")
    page.press("#question", "Enter")
    page.wait_for_selector('#answer[data-state="done"], #answer[data-state="cut"]')
    page.reload()
    page.wait_for_selector('#status[data-state="ready"]')
    assert page.locator("#key-dialog").is_hidden(), "this tab remembers it"
    assert page.evaluate("localStorage.getItem('forebay.key')") is None
    assert not [url for url in asked if key in url]


@pytest.mark.browser
def test_who_says_not_now_is_asked_again_with_the_next_question(page: Page) -> None:
    page.wait_for_selector("#key-dialog[open]")
    page.click("#key-leave")
    page.wait_for_selector('#status[data-state="ready"]')
    page.wait_for_timeout(2_000)
    assert page.locator("#key-dialog").is_hidden()
    page.fill("#question", "你好")
    page.press("#question", "Enter")
    page.wait_for_selector("#key-dialog[open]")
    page.keyboard.press("Escape")
    page.wait_for_selector('#answer[data-state="failed"]')
    assert page.locator("#error-code").inner_text() == "unauthorized"


def test_the_command_that_asks_sends_the_key_of_the_settings(
    stack: RunningStack, tmp_path: Path
) -> None:
    file = tmp_path / "key"
    file.write_text(make_key(stack) + "\n")
    command = [str(BIN / "forebay"), "ask", "--url", stack.url.rstrip("/"), "--max-tokens", "4"]

    def ask(**more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, "你好"],
            check=False,
            env={**environment(stack), **more},
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )

    refused = ask()
    assert refused.returncode == 1
    assert "401" in refused.stderr
    answered = ask(FOREBAY_API_KEY_FILE=str(file))
    assert answered.returncode == 0, answered.stderr
    assert answered.stdout.strip()


def commands(page: str) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.strip().splitlines()]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_every_command_of_the_page_does_what_the_page_says(stack: RunningStack) -> None:
    typed = [one for one in commands("access.md") if not one.startswith("forebay serve")]
    script = f"\necho '{BETWEEN}'\n".join(["set -eu", *typed]).replace(ADDRESS, stack.url)
    done = subprocess.run(
        ["sh", "-c", script],
        check=False,
        env=environment(stack),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stderr
    said = dict(zip(typed, done.stdout.split(f"{BETWEEN}\n")[1:], strict=True))

    def of(holding: str) -> str:
        return next(text for command, text in said.items() if holding in command)

    for header in ("Authorization: Bearer $KEY", "X-API-Key"):
        assert json.loads(of(header))["object"] == "list"
    shown = json.loads(of("keys show"))
    assert (shown["scopes"], shown["tenant"], shown["label"]) == (["infer"], "shop", "till")
    assert shown["allowance"]["tokens_per_day"] == 2_000_000
    assert shown["id"] in of("keys list")
    rotated = of("keys rotate").strip()
    assert rotated.startswith(f"fb_{shown['id']}_")
    assert of("keys revoke").startswith(shown["id"])
    made = json.loads(of('"label": "till"'))
    assert made["key"].startswith("fb_")
    assert json.loads(of("/v1/admin/queue"))["drained"] in (False, 0)
    deeds = [one["action"] for one in json.loads(of("/v1/admin/audit"))["data"]]
    assert deeds[:5] == ["key.create", "key.create", "key.revoke", "key.rotate", "key.create"]
    assert "keys are forgotten" in of("keys clear")
    assert rotated not in done.stderr
    log = stack.log.read_text(encoding="utf-8", errors="replace")
    assert rotated not in log
    assert made["key"] not in log


@pytest.mark.parametrize("page", PAGES)
def test_the_servers_of_the_page_may_stand_on_any_address(page: str) -> None:
    starts = [shlex.split(one) for one in commands(page) if one.startswith("forebay serve")]
    assert len(starts) == 3
    for words in starts:
        assert words[2::2] == ["--set"] * len(words[2::2])
        settings = load_settings(**dict(one.split("=", 1) for one in words[3::2]))
        assert settings.door_fault("0.0.0.0") is None
