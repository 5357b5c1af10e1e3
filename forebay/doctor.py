"""Checks of this machine before a start: each says what it found, and the mend if it is bad."""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil

from forebay.config import Settings
from forebay.core.errors import QueueUnavailableError
from forebay.doctor_access import check_access
from forebay.engine.upstream.engine import ask_once
from forebay.engine.upstream.faults import UpstreamFaultError
from forebay.findings import Finding, Verdict
from forebay.queue.binaries import find_server_binary
from forebay.queue.errors import QueueSetupError, ServerRightsError
from forebay.queue.opening import open_queue
from forebay.queue.rights import acl_command
from forebay.queue.verification import is_durable
from forebay.worker.main import upstream_address

NEEDED_FREE_DISK = 2**30
NEEDED_FREE_MEMORY = 2**30
UPSTREAM_PATIENCE_S = 60.0
WEIGHTS_MARGIN = 1.3
"""Memory that a model takes beside its weights, as a share of them."""


Check = Callable[[Settings], Finding]


def examine(settings: Settings) -> list[Finding]:
    """Run every check; a broken one is a finding, not the end of the others."""
    checks = CHECKS if settings.upstream_url is None else UPSTREAM_CHECKS
    return [check(settings) for check in checks]


def _python(settings: Settings) -> Finding:
    found = f"Python {sys.version.split()[0]} on {sys.platform}"
    if settings.upstream_url is not None:
        return Finding("python", Verdict.GOOD, f"{found}; an upstream needs no torch here")
    missing = [name for name in ("torch", "safetensors", "tokenizers", "jinja2") if not _has(name)]
    if missing:
        return Finding(
            "python",
            Verdict.BAD,
            f"{found}; the engine's packages are missing: {', '.join(missing)}",
            'pip install "forebay[engine]" (an API-only machine needs none of them)',
        )
    return Finding("python", Verdict.GOOD, found)


def _has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _memory(settings: Settings) -> Finding:
    free = psutil.virtual_memory().available
    weights = sum(file.stat().st_size for file in settings.model_folder.glob("*.safetensors"))
    needed = int(weights * 2 * WEIGHTS_MARGIN) * settings.workers + NEEDED_FREE_MEMORY
    found = f"{_gib(free)} free; about {_gib(needed)} wanted for {settings.workers} worker(s)"
    if free < needed:
        return Finding(
            "memory",
            Verdict.WARN,
            found,
            "End other programs, lower --workers, or take a smaller model.",
        )
    return Finding("memory", Verdict.GOOD, found)


def _disk(settings: Settings) -> Finding:
    folder = _existing(settings.data_dir)
    free = shutil.disk_usage(folder).free
    found = f"{_gib(free)} free at {settings.data_dir}"
    if free < NEEDED_FREE_DISK:
        return Finding(
            "disk",
            Verdict.BAD,
            f"{found}; {_gib(NEEDED_FREE_DISK)} wanted",
            "Free some space, or set --data-dir to a larger disk.",
        )
    return Finding("disk", Verdict.GOOD, found)


def _nvidia(settings: Settings) -> Finding:
    program = shutil.which("nvidia-smi")
    bad = Verdict.BAD if settings.device.startswith("cuda") else Verdict.WARN
    if program is None:
        if bad is Verdict.BAD:
            return Finding("nvidia", bad, "no driver", "Install NVIDIA's driver or set device=cpu.")
        return Finding("nvidia", Verdict.GOOD, "no NVIDIA driver: the model runs on the CPU")
    query = [program, "--query-gpu=name,memory.free,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError) as error:
        return Finding(
            "nvidia",
            bad,
            f"nvidia-smi fails: {error}",
            "Reload or reinstall the driver (a reboot after a driver update often mends it).",
        )
    return Finding("nvidia", Verdict.GOOD, "; ".join(done.stdout.strip().splitlines()))


def _port(settings: Settings) -> Finding:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            return Finding(
                "port",
                Verdict.WARN,
                f"{settings.host}:{settings.port} cannot be had: {error.strerror}",
                "The next free port will be used; or choose one with --port.",
            )
    return Finding("port", Verdict.GOOD, f"{settings.host}:{settings.port} is free")


def _queue(settings: Settings) -> Finding:
    try:
        if settings.queue_url is None:
            return Finding("queue", Verdict.GOOD, f"private server: {find_server_binary()}")
        address = settings.queue_address()
        durable = asyncio.run(_open(settings))
    except ServerRightsError as error:
        rule = acl_command(settings.queue_name, address.login.username, address.form)
        return Finding("queue", Verdict.BAD, str(error), f"Run: {rule}")
    except QueueSetupError as error:
        return Finding("queue", Verdict.BAD, str(error), error.mend)
    except (QueueUnavailableError, ValueError) as error:
        return Finding(
            "queue", Verdict.BAD, str(error), "Start that server, or unset queue_url for our own."
        )
    if not durable:
        return Finding(
            "queue",
            Verdict.WARN,
            "the configured server keeps tasks in memory only: its restart loses them",
            "Run on it: CONFIG SET appendonly yes (and set it in its configuration file).",
        )
    return Finding("queue", Verdict.GOOD, "the configured server answers and evicts nothing")


async def _open(settings: Settings) -> bool:
    """Open the queue as a worker would; whether its server writes down what it accepts."""
    async with open_queue(
        settings.queue_address(),
        settings.queue_name,
        settings.queue_limits(),
        partitions=settings.queue_partitions,
    ) as opened:
        return all([await is_durable(place.redis) for place in opened.places])


def check_model(settings: Settings) -> Finding:
    """Look for the files that every checkpoint has; before an upstream, for those with prices."""
    folder = settings.profile_folder
    if folder is None:
        return Finding("model", Verdict.GOOD, f"{settings.served_name}, priced as GLM-4.6V")
    wanted = ["config.json", "preprocessor_config.json"]
    if settings.upstream_url is None:
        wanted.append("tokenizer.json")
    missing = [name for name in wanted if not (folder / name).is_file()]
    if settings.upstream_url is None and not list(folder.glob("*.safetensors")):
        missing.append("*.safetensors")
    if missing:
        return Finding(
            "model",
            Verdict.BAD,
            f"{folder} lacks {', '.join(missing)}",
            "Set --model to a whole Hugging Face checkpoint folder of Glm4v or Glm46V.",
        )
    return Finding("model", Verdict.GOOD, f"{settings.served_name} in {folder}")


def _existing(folder: Path) -> Path:
    while not folder.exists():
        folder = folder.parent
    return folder


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB"


def _upstream(settings: Settings) -> Finding:
    """Ask the upstream for one token about a picture, as a worker does before its first task."""
    try:
        model = asyncio.run(ask_once(upstream_address(settings), UPSTREAM_PATIENCE_S))
    except UpstreamFaultError as error:
        mend = "Start it, or correct upstream_url, upstream_model and upstream_api_key."
        return Finding("upstream", Verdict.BAD, str(error), mend)
    return Finding("upstream", Verdict.GOOD, f"{model} at {settings.upstream_url} answers")


CHECKS: tuple[Check, ...] = (
    _python, _memory, _disk, _nvidia, _port, _queue, check_access, check_model,
)  # fmt: skip
UPSTREAM_CHECKS: tuple[Check, ...] = (
    _python, _disk, _port, _queue, check_access, check_model, _upstream,
)  # fmt: skip
