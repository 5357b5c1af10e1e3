"""``forebay doctor --bundle``: what whoever helps needs to know, in one file, without secrets.

Every part is made by itself and says why where it cannot be, so that the worst of days still
gives a bundle. Neither prompts, answers, pictures nor keys are in it.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import re
import resource
import sys
import time
import zipfile
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any, Final

import httpx
import psutil

from forebay.bundle_redaction import Redactor, settings_form
from forebay.config import ENV_PREFIX, Settings
from forebay.engine.host_memory import available_bytes
from forebay.findings import Finding
from forebay.ops.alerts.store import AlertStore
from forebay.ops.resources import Machine
from forebay.ops.worker_status import read_status, status_mark
from forebay.queue.opening import OpenQueue
from forebay.queue_here import opened_queue
from forebay.worker.ports import local_url

MOST_OF_A_PART: Final = 2 * 2**20
LOG_TAIL_BYTES: Final = 512 * 2**10
MOST_LOGS: Final = 16
MOST_CHANGES: Final = 200
ANSWER_S: Final = 10.0

READ_ME: Final = """\
A support bundle of Forebay. Please look through it before you send it to anybody.

settings.json   every setting; of secrets only whether they are set, of addresses no login
doctor.json     what `forebay doctor` found
versions.json   Forebay, Python and the packages
machine.json    processors, memory, disk, GPUs
workers.json    the last sign of life of this machine's workers
queue.json      how much waits and runs, and the alerts with their last changes
metrics.txt     /metrics of the API of this machine
logs/           the end of each log file: our own lines, with the fields that may be logged

A part that could not be had says why. In no part are prompts, answers, pictures or keys.
"""

Part = Callable[[Settings], Any]


class BundleError(Exception):
    """The bundle cannot be written there."""


def write_bundle(file: Path, settings: Settings, findings: Sequence[Finding]) -> list[str]:
    """Write the bundle; return the names of what is in it.

    Raises:
        BundleError: the file is there already, or cannot be written.
    """
    redactor = Redactor(settings)
    contents = {"README.txt": READ_ME, "doctor.json": _json(redactor, [*map(asdict, findings)])}
    for name, part in PARTS.items():
        contents[name] = _made(part, settings, redactor)
    contents |= _logs(settings, redactor)
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as raw, zipfile.ZipFile(raw, "w", _DEFLATE) as bundle:
            for name, text in contents.items():
                bundle.writestr(name, text.encode("utf-8", errors="replace")[:MOST_OF_A_PART])
    except FileExistsError as error:
        raise BundleError(f"{file} is there already: name another file") from error
    except OSError as error:
        raise BundleError(f"{file} cannot be written: {error}") from error
    return list(contents)


_DEFLATE: Final = zipfile.ZIP_DEFLATED


def _made(part: Part, settings: Settings, redactor: Redactor) -> str:
    try:
        return _json(redactor, part(settings))
    except Exception as error:  # noqa: BLE001 - whatever is broken, the bundle is to show it
        return _json(redactor, {"missing": f"{type(error).__name__}: {error}"})


def _json(redactor: Redactor, content: Any) -> str:
    if isinstance(content, str):
        return redactor.text(content)
    return json.dumps(redactor.content(content), indent=1, ensure_ascii=False) + "\n"


def _settings(settings: Settings) -> dict[str, Any]:
    own = sorted(name for name in os.environ if name.startswith(ENV_PREFIX))
    return {"settings": settings_form(settings), "variables_that_are_set": own}


def _versions(settings: Settings) -> dict[str, Any]:
    del settings
    names = {_name_of(one) for one in requires("forebay") or []}
    return {
        "forebay": version("forebay"),
        "python": sys.version,
        "platform": platform.platform(),
        "libc": " ".join(platform.libc_ver()),
        "packages": {name: _version(name) for name in sorted(names)},
    }


def _name_of(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _machine(settings: Settings) -> dict[str, Any]:
    reading = asdict(Machine(settings.data_dir).read())
    memory = psutil.virtual_memory()
    return {
        "reading": {name: value for name, value in reading.items() if name != "certificates"},
        "processors": psutil.cpu_count(),
        "load": os.getloadavg(),
        "memory_bytes": {"total": memory.total, "available": memory.available},
        "memory_left_by_control_groups": available_bytes(),
        "swap_bytes": psutil.swap_memory().used,
        "open_files": resource.getrlimit(resource.RLIMIT_NOFILE),
        "up_s": round(time.time() - psutil.boot_time()),
    }


def _workers(settings: Settings) -> list[dict[str, Any]]:
    found = []
    for file in sorted(settings.run_dir.glob("*.status.json")):
        name = file.name.removesuffix(".status.json")
        status, mark = read_status(settings.run_dir, name), status_mark(settings.run_dir, name)
        if status is not None and mark is not None:
            lives = psutil.pid_exists(status.pid)
            age_s = round(time.time() - mark / 1e9, 1)
            found.append({**asdict(status), "process_lives": lives, "said_s_ago": age_s})
    return found


def _queue(settings: Settings) -> dict[str, Any]:
    async def look() -> dict[str, Any]:
        async with asyncio.timeout(ANSWER_S), opened_queue(settings) as opened:
            return await _of_queue(settings, opened)

    return asyncio.run(look())


async def _of_queue(settings: Settings, opened: OpenQueue) -> dict[str, Any]:
    store = AlertStore(opened.access, settings.queue_name)
    alerts = await store.alerts()
    return {
        "depth": asdict(await opened.queue.depth()),
        "workers": await opened.queue.workers(),
        "alerts": [one.to_json() for one in alerts.values()],
        "alert_changes": await store.log(MOST_CHANGES),
        "silences": [one.to_json() for one in await store.silences(time.time())],
    }


def _metrics(settings: Settings) -> str:
    url = f"{local_url(settings.host, settings.port)}/metrics"
    reply = httpx.get(url, timeout=ANSWER_S, trust_env=False)
    return reply.raise_for_status().text


def _logs(settings: Settings, redactor: Redactor) -> dict[str, str]:
    terms = settings.log_file_terms()
    files = [] if terms is None else terms.files()
    files += (settings.run_dir / "logs").glob("*.log")
    newest = sorted(files, key=_changed_s)[-MOST_LOGS:]
    if not newest:
        return {"logs/none.txt": "No log file: the log goes to standard error. Set log_file.\n"}
    return {f"logs/{one.name}": "\n".join(redactor.log_lines(_tail(one))) + "\n" for one in newest}


def _changed_s(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


def _tail(file: Path) -> deque[str]:
    """Return the last whole lines of a file."""
    try:
        with file.open("rb") as opened:
            size = opened.seek(0, os.SEEK_END)
            opened.seek(max(0, size - LOG_TAIL_BYTES))
            lines = deque(opened.read(LOG_TAIL_BYTES).decode("utf-8", "replace").splitlines())
    except OSError as error:
        return deque([json.dumps({"logger": "forebay", "event": "unread", "reason": str(error)})])
    if size > LOG_TAIL_BYTES:
        lines.popleft()
    return lines


PARTS: Final[dict[str, Part]] = {
    "settings.json": _settings,
    "versions.json": _versions,
    "machine.json": _machine,
    "workers.json": _workers,
    "queue.json": _queue,
    "metrics.txt": _metrics,
}
