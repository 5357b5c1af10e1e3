"""A stack with a console, an administrator in a browser, and who is told of alerts."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Any

import httpx
from playwright.sync_api import Browser, BrowserContext, Page
from standardwebhooks import Webhook, WebhookVerificationError

from forebay.ops.canary.watch import BY
from forebay.queue.address import parse_address
from forebay.queue.canary import RedisCanary, new_entry
from forebay.queue.opening import OpenQueue, open_queue
from scripts.running_stack import RunningStack
from tests.browser.conftest import WAIT_MS

BIN = Path(sys.executable).parent
LIMIT_S = 300
HOOK_SECRET = "whsec_" + "Y29uc29sZSB0ZXN0cyBrZWVwIG5vIHNlY3JldHM="
VIEWS = ("live", "workers", "tasks", "alerts", "keys", "canary", "audit")


def admin_key(stack: RunningStack, *options: str) -> str:
    """Make a key as an operator does, beside the server."""
    kept = {key: val for key, val in os.environ.items() if not key.startswith("FOREBAY_")}
    done = subprocess.run(
        [str(BIN / "forebay"), "keys", "create", "operator", *(options or ("--scope", "admin"))],
        check=True,
        env={**kept, "FOREBAY_CONFIG": "", "FOREBAY_DATA_DIR": str(stack.data_dir)},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    return done.stdout.strip()


@dataclass
class Administrator:
    """Who has the key, with what their browser asked and complained of."""

    page: Page
    url: str
    key: str
    requested: list[tuple[str, str]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def goes_to(self, view: str) -> None:
        """Follow the link to a view, and wait until it is there."""
        self.page.click(f'nav a[data-place="{view}"]')
        self.page.wait_for_selector(f'main[data-place="{view}"]')

    def agrees(self) -> None:
        """Say yes to what the open dialog asks."""
        title = self.page.get_attribute("dialog.dialog[open]", "aria-labelledby")
        self.page.click("dialog.dialog[open] button[type=submit]")
        # another one may open in its place
        self.page.wait_for_selector(f'dialog[aria-labelledby="{title}"]', state="detached")

    def row(self, *words: str) -> Any:
        """Return the table row that has all these words."""
        found = self.page.locator("tbody tr")
        for one in words:
            found = found.filter(has_text=one)
        return found

    def asks(self, path: str, method: str = "GET", **body: Any) -> Any:
        """Ask the API itself: what the page says is held against it."""
        answer = httpx.request(
            method,
            f"{self.url}v1/admin/{path}",
            headers={"Authorization": f"Bearer {self.key}"},
            json=body or None,
            timeout=60,
        )
        return answer.raise_for_status().json()


def sign_in(context: BrowserContext, url: str, key: str, view: str = "live") -> Administrator:
    """Open the console, give it the key by its form, and wait for the first figures."""
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    admin = Administrator(page, url, key)
    page.on("request", lambda request: admin.requested.append((request.method, request.url)))
    page.on("pageerror", lambda error: admin.errors.append(str(error)))
    page.on(
        "console", lambda line: admin.errors.append(line.text) if line.type == "error" else None
    )
    page.goto(f"{url}console#/{view}")
    page.fill("#admin-key", key)
    page.press("#admin-key", "Enter")
    page.wait_for_selector('#stream[data-state="live"]', state="attached")
    return admin


@contextmanager
def visit(browser: Browser, url: str, key: str, view: str, **options: Any) -> Iterator[Any]:
    """Sign in with a browser of one's own, until the block ends."""
    context = browser.new_context(**{"locale": "en-US", **options})
    yield sign_in(context, url, key, view)
    context.close()


@dataclass
class Receiver:
    """Takes webhooks that are signed rightly, and remembers them; refuses all others."""

    url: str
    taken: list[Any] = field(default_factory=list)


@contextmanager
def receiving(secret: str = HOOK_SECRET) -> Iterator[Receiver]:
    """Run a receiver of webhooks in a thread: the browser's client holds this one's event loop."""
    hook = Webhook(secret)

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            try:
                hook.verify(body, {name.lower(): text for name, text in self.headers.items()})
            except WebhookVerificationError:
                self.send_response(401)
            else:
                receiver.taken.append(json.loads(body))
                self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        receiver = Receiver(f"http://127.0.0.1:{server.server_address[1]}/alerts")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield receiver
        server.shutdown()


@dataclass
class Line:
    """A way to a stack that can be cut: what goes over it then ends, and nothing new goes."""

    url: str
    whole: bool = True
    _sockets: set[socket.socket] = field(default_factory=set)

    def cut(self) -> None:
        """Cut it."""
        self.whole = False
        for one in list(self._sockets):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Let new connections through."""
        self.whole = True

    def carry(self, client: socket.socket, port: int) -> None:
        """Carry one connection to its end."""
        if not self.whole:
            return
        with socket.create_connection(("127.0.0.1", port)) as server:
            both = {client, server}
            self._sockets |= both
            back = threading.Thread(target=_pipe, args=(server, client))
            back.start()
            _pipe(client, server)
            back.join()
            self._sockets -= both


def _pipe(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while found := source.recv(65536):
            sink.sendall(found)
    for one in (source, sink):
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)


@contextmanager
def line_to(url: str) -> Iterator[Line]:
    """Run a line to a stack's URL until the block ends."""
    port = int(url.rsplit(":", 1)[1].strip("/"))

    class Carry(BaseRequestHandler):
        def handle(self) -> None:
            line.carry(self.request, port)

    with ThreadingTCPServer(("127.0.0.1", 0), Carry) as server:
        server.daemon_threads = True
        line = Line(f"http://127.0.0.1:{server.server_address[1]}/")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield line
        line.cut()
        server.shutdown()


async def _die(opened: OpenQueue) -> None:
    died, queue = 0, opened.queue
    async with asyncio.timeout(WAIT_MS / 1000):
        while died < 3:
            for lease in await queue.claim("ill", 1, 10**6):
                died += 1
                await queue.redeliver([(lease.task_id, lease.fence)], "it fell ill")


def make_dead_letter(stack: RunningStack) -> str:
    """Have a task stop a worker three times, while no other works; return its id."""
    fresh = {"Cache-Control": "no-store"}
    asked = httpx.post(
        f"{stack.url}v1/tasks", json={"prompt": "die"}, headers=fresh, timeout=60
    ).raise_for_status()
    name: str = asked.json()["id"]
    with_queue(stack, _die)
    return name


def roll_back(stack: RunningStack, before: float, fault: str) -> None:
    """Have the canary's share taken back, as whoever judges it does."""
    figures = {"tasks": 60, "failed_share": 0.0167, "answer_p95_s": 4.6}
    entry = new_entry(0.0, before, BY, fault, stable=figures, canary=figures)

    async def act(opened: OpenQueue) -> None:
        assert await RedisCanary(opened.places).set(entry)

    with_queue(stack, act)


def with_queue(stack: RunningStack, act: Callable[[OpenQueue], Awaitable[None]]) -> None:
    """Do something at the stack's queue itself, in a thread of its own."""

    async def run() -> None:
        address = parse_address(f"unix://{stack.data_dir}/queue/valkey.sock")
        async with open_queue(address) as opened:
            await act(opened)

    with ThreadPoolExecutor(1) as thread:
        thread.submit(lambda: asyncio.run(run())).result()
