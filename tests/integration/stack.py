"""``forebay serve`` as a real process tree, driven from outside by signals and HTTP."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import httpx
import psutil
from PIL import Image

T = TypeVar("T")
WAIT_S = 120.0
"""Bounds every wait; far above what any takes, because test machines are shared."""


class ServeProcess:
    """A running ``forebay serve``; the log of all its processes is in ``log``."""

    def __init__(self, model: Path, data_dir: Path, *arguments: str) -> None:
        data_dir.mkdir(parents=True, exist_ok=True)
        self.log = data_dir / "serve.log"
        self.data_dir = data_dir
        options = ("--model", str(model), "--data-dir", str(data_dir), *arguments)
        with self.log.open("ab") as log:
            self._log_from = log.tell()
            self.process = subprocess.Popen(
                [sys.executable, "-m", "forebay", "serve", *options],
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "200"},
                start_new_session=True,
            )
        try:
            self.url = self.until(self._said_where, "the page's address")
        except AssertionError:
            self.process.terminate()
            self.process.wait(60)
            raise
        self.tree = [self.process.pid, *self.children()]
        self.client = httpx.Client(base_url=self.url, timeout=30, trust_env=False)

    def output(self) -> str:
        with self.log.open("rb") as log:
            log.seek(self._log_from)
            return log.read().decode()

    def _said_where(self) -> str | None:
        found = re.search(r"The page is at (http://\S+?)/\s", self.output())
        assert self.process.poll() is None, self.output()
        return found.group(1) if found else None

    def until(self, look: Callable[[], T | None], what: str) -> T:
        """Return the first truthy thing that ``look`` sees."""
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            if found := look():
                return found
            time.sleep(0.05)
        raise AssertionError(f"no {what} in {WAIT_S:.0f} s; the log:\n{self.output()[-4000:]}")

    def children(self) -> list[int]:
        return [one.pid for one in psutil.Process(self.process.pid).children(recursive=True)]

    def pid_of(self, command: str) -> int | None:
        """Return the pid of the child whose command line holds ``command``."""
        for child in psutil.Process(self.process.pid).children():
            with contextlib.suppress(psutil.Error):
                if command in child.cmdline() and child.status() != psutil.STATUS_ZOMBIE:
                    return child.pid
        return None

    def kill_child(self, command: str) -> None:
        """SIGKILL a child and wait for the supervisor to start another in its place."""
        old = self.until(lambda: self.pid_of(command), command)
        os.kill(old, signal.SIGKILL)

        def another() -> int | None:
            now = self.pid_of(command)
            return now if now != old else None

        self.tree.append(self.until(another, f"new {command}"))

    def queue_server(self) -> int:
        """Return the pid of the private queue server."""
        (found,) = (
            one.pid
            for one in psutil.Process(self.process.pid).children()
            if "valkey" in one.name() or "redis" in one.name()
        )
        return found

    def submit(self, count: int, prompt: str = "what is it") -> list[str]:
        """Accept ``count`` pictures at once; return their task ids.

        The same prompt again is answered from what was said before.
        """
        with ThreadPoolExecutor(count) as pool:
            replies = list(pool.map(lambda shade: self._predict(shade, prompt), range(count)))
        assert [reply.status_code for reply in replies] == [200] * count, replies[0].text
        return [reply.json()["task_id"] for reply in replies]

    def _predict(self, shade: int, prompt: str) -> httpx.Response:
        files = {"image": ("a.png", _picture(shade), "image/png")}
        return self.client.post("/predict", files=files, data={"prompt": prompt})

    def status(self, task_id: str) -> str:
        body = self.client.get("/result", params={"task_id": task_id}).json()
        assert body.get("status") in ("pending", "success"), body
        return str(body["status"])

    def answered(self, task_ids: list[str]) -> int:
        return sum(self.status(task_id) == "success" for task_id in task_ids)

    def await_answers(self, task_ids: list[str]) -> None:
        self.until(lambda: self.answered(task_ids) == len(task_ids), "end of all answers")

    def stop(self, how: signal.Signals) -> int:
        """Send a signal to the supervisor alone; return its exit status."""
        self.tree.extend(self.children())
        self.client.close()
        self.process.send_signal(how)
        return self.process.wait(WAIT_S)

    def living(self) -> list[int]:
        """Return the processes that ever belonged to this stack and still live."""
        return [
            pid
            for pid in set(self.tree)
            if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        ]

    def clean_up(self) -> None:
        """Leave no process behind, whatever the test did."""
        self.client.close()
        if self.process.poll() is None:
            with contextlib.suppress(psutil.Error):
                self.tree.extend(self.children())
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait(10)
        for pid in self.living():
            os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def serving(model: Path, data_dir: Path, *arguments: str) -> Iterator[ServeProcess]:
    """Run the stack for the block."""
    stack = ServeProcess(model, data_dir, "--port", str(free_port()), *arguments)
    try:
        yield stack
    finally:
        stack.clean_up()


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _picture(shade: int) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (80, 60), (shade * 5 % 256, 120, 255 - shade)).save(content, "PNG")
    return content.getvalue()
