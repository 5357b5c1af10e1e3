"""A whole stack in a folder of its own, for the browser tests and the screenshots."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

START_LIMIT_S = 180.0
STOP_LIMIT_S = 60.0


class StackNotReadyError(Exception):
    """The stack ended, or was not ready in time; the message has the end of its output."""


@dataclass(frozen=True)
class RunningStack:
    """Where it answers, and where its state and its output lie."""

    url: str
    data_dir: Path
    log: Path


@contextmanager
def running_stack(
    folder: Path, model: str = "demo", sets: Sequence[str] = ()
) -> Iterator[RunningStack]:
    """Run ``forebay serve`` on a free port until the block ends, stopped in order.

    ``model``: a checkpoint folder, or the built-in one. ``sets``: settings, as ``key=value``.

    Raises:
        StackNotReadyError: it did not start.
    """
    port = free_port()
    stack = RunningStack(f"http://127.0.0.1:{port}/", folder / "data", folder / "serve.log")
    command = [str(Path(sys.executable).parent / "forebay"), "serve", "--port", str(port)]
    command += ["--data-dir", str(stack.data_dir), "--model", model]
    command += [part for one in sets for part in ("--set", one)]
    environment = {key: val for key, val in os.environ.items() if not key.startswith("FOREBAY_")}
    environment["FOREBAY_CONFIG"] = ""
    with stack.log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
        )
        try:
            wait_until_ready(process, stack)
            yield stack
        finally:
            stop(process)


def wait_until_ready(process: subprocess.Popen[bytes], stack: RunningStack) -> None:
    """Return when a question would be answered. Raises StackNotReadyError."""
    deadline = time.monotonic() + START_LIMIT_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(stack.url + "ready", timeout=5):  # noqa: S310 - own address
                return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.1)
    tail = stack.log.read_text(encoding="utf-8", errors="replace")[-2000:]
    raise StackNotReadyError(f"the stack is not ready (exit code {process.poll()}):\n{tail}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ask for an ordered stop; kill what does not stop."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(STOP_LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
