"""Starts one server as a process tree of its own, waits until it is ready, stops it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

START_LIMIT_S = 900.0
STOP_LIMIT_S = 40.0
_POLL_S = 0.1
_LOG_TAIL = 3000

OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
}


class ServerError(Exception):
    """A server cannot be started or did not become ready; the message has its log's end."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one server is started for one checkpoint.

    Attributes:
        name: what the report calls it.
        command: the process to start.
        environment: variables beside the usual ones.
        port: where it will listen, on 127.0.0.1.
        ready_path: answers 200 once a request would be answered.
        model: what clients must call the model.
        streams: whether it sends tokens as they come.
        run_dir: where a Forebay stack says how its workers are; None for a peer.
    """

    name: str
    command: tuple[str, ...]
    port: int
    ready_path: str = "/health"
    model: str = "m"
    streams: bool = True
    environment: Mapping[str, str] = field(default_factory=dict)
    run_dir: Path | None = None


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that is ready. ``ready_s``: from its start to its first word of being ready."""

    recipe: Recipe
    process: subprocess.Popen[bytes]
    ready_s: float
    log: Path

    @property
    def name(self) -> str:
        """What the report calls it."""
        return self.recipe.name

    @property
    def url(self) -> str:
        """Its address, on this machine."""
        return f"http://127.0.0.1:{self.recipe.port}"

    def tree(self) -> list[psutil.Process]:
        """Return its living processes, the first one first."""
        try:
            first = psutil.Process(self.process.pid)
            return [first, *first.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []


@contextmanager
def running(recipe: Recipe, logs: Path) -> Iterator[RunningServer]:
    """Run a server until the block ends.

    Raises:
        ServerError: it ended, or was not ready in time.
    """
    logs.mkdir(parents=True, exist_ok=True)
    log = logs / f"{recipe.name}.log"
    began = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            recipe.command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=clean_environment() | OFFLINE | dict(recipe.environment),
            start_new_session=True,
        )
        try:
            _wait_ready(process, recipe, log, began)
            yield RunningServer(recipe, process, time.monotonic() - began, log)
        finally:
            stop(process)


def clean_environment() -> dict[str, str]:
    """Return this process's variables without settings of Forebay's: the bench gives its own."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("FOREBAY_")}
    return {**others, "FOREBAY_CONFIG": ""}


def _wait_ready(process: subprocess.Popen[bytes], recipe: Recipe, log: Path, began: float) -> None:
    address = f"http://127.0.0.1:{recipe.port}{recipe.ready_path}"
    with httpx.Client(timeout=5, trust_env=False) as client:
        while process.poll() is None and time.monotonic() - began < START_LIMIT_S:
            with contextlib.suppress(httpx.HTTPError):
                if client.get(address).is_success:
                    return
            time.sleep(_POLL_S)
    tail = log.read_text(encoding="utf-8", errors="replace")[-_LOG_TAIL:]
    waited = time.monotonic() - began
    raise ServerError(
        f"{recipe.name} is not ready after {waited:.0f} s (exit code {process.poll()}); "
        f"its log, {log}, ends:\n{tail}"
    )


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ask the first process for an ordered stop, then end what is left of its tree."""
    if process.poll() is not None:
        return
    tree = psutil.Process(process.pid).children(recursive=True)
    process.terminate()  # a program started in the background may ignore SIGINT
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_LIMIT_S)
    left = [one for one in tree if one.is_running()]
    if process.poll() is None:
        left.append(psutil.Process(process.pid))
    for one in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    psutil.wait_procs(left, STOP_LIMIT_S)
    process.wait()
