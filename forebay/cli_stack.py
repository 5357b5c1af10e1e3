"""The commands that run the whole stack in this terminal: serve, demo, ask."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from forebay import demo
from forebay.ask import check_pictures, server_at, stream_answer
from forebay.cli_view import StartSteps, burst_progress, console, print_report
from forebay.config import Settings
from forebay.doctor import check_model
from forebay.findings import Verdict
from forebay.logs import configure_logs
from forebay.ops.worker_status import WorkerStatus
from forebay.worker.doors import run_doors
from forebay.worker.ports import local_url
from forebay.worker.signals import StopSignal
from forebay.worker.supervisor import Stack, StackError, StopRequestedError

STATUS_LAG_S = 1.5
"""A worker's status file is at most a heartbeat old."""


@asynccontextmanager
async def running_stack(settings: Settings, log_dir: Path | None) -> AsyncIterator[Stack]:
    """Run the stack until the block ends; ready when the block begins, stopped in order after.

    Raises:
        StackError: there is no model, or a process cannot be kept alive.
        StopRequestedError: Ctrl-C or SIGTERM came before the block.
    """
    model = check_model(settings)
    if model.verdict is Verdict.BAD:
        raise StackError(f"{model.found}. {model.mend}")
    if settings.canary_model:
        canary = check_model(settings.of_canary())
        if canary.verdict is Verdict.BAD:
            raise StackError(f"canary_model: {canary.found}. {canary.mend}")
    with StopSignal().listening() as stop:
        async with Stack(settings, stop=stop, report=StartSteps(), log_dir=log_dir) as stack:
            await stack.guard(stack.wait_ready())
            yield stack


def serve(settings: Settings) -> None:
    """Run the stack until Ctrl-C or SIGTERM."""
    _log_as_supervisor(settings)

    async def main() -> None:
        async with running_stack(settings, None) as stack:
            say_where(stack)
            await stack.guard(asyncio.Event().wait())

    _run_until_stopped(main())


def serve_doors(settings: Settings) -> None:
    """Run several API processes at one port, without the rest, until Ctrl-C or SIGTERM.

    Raises:
        ChildFailedError: one of them ended again and again before it was ever ready.
        NoPortError: the port is taken.
    """
    _log_as_supervisor(settings)

    async def main() -> None:
        with StopSignal().listening() as stop:
            await run_doors(settings, stop)

    asyncio.run(main())


def _log_as_supervisor(settings: Settings) -> None:
    settings.check_door()
    configure_logs(
        "supervisor",
        level=settings.log_level,
        form=settings.log_format,
        file=settings.log_file_terms(),
    )


def run_demo(
    settings: Settings, *, samples: Path, count: int, once: bool, json_file: Path | None
) -> bool:
    """Run the stack and a burst; whether every request was answered."""
    configure_logs("supervisor", level="warning", form=settings.log_format)
    burst = demo.load_samples(samples, count)
    if json_file is not None:
        _check_writable(json_file)
    whole = False

    async def main() -> None:
        nonlocal whole
        async with running_stack(settings, settings.run_dir / "logs") as stack:
            report = await _burst(stack, burst, json_file)
            whole = report.count(demo.Fate.ANSWERED) == len(burst)
            if not once:
                say_where(stack)
                await stack.guard(asyncio.Event().wait())

    stopped = _run_until_stopped(main())
    return whole or (stopped and not once)


def _check_writable(file: Path) -> None:
    # known before the burst, not after it
    if file.is_dir() or not os.access(file.parent, os.W_OK):
        raise StackError(f"{file} cannot be written")


async def _burst(
    stack: Stack, burst: Sequence[demo.Sample], json_file: Path | None
) -> demo.BurstReport:
    console.print(f"\n{len(burst)} pictures at once to {stack.url}/predict\n")
    with burst_progress(len(burst)) as progress:
        report = await stack.guard(demo.run_burst(stack.url, burst, on_end=progress.end))
    await stack.guard(asyncio.sleep(STATUS_LAG_S))
    peak_mb = peak_memory_mb(stack.worker_statuses())
    print_report(report, peak_mb)
    if json_file is not None:
        figures = json.dumps(report.to_dict(peak_mb), indent=2)
        await asyncio.to_thread(json_file.write_text, figures + "\n", encoding="utf-8")
    return report


def peak_memory_mb(statuses: Sequence[WorkerStatus]) -> float:
    """Return the peak memory of the worker that took most, in MiB."""
    return max((status.peak_bytes for status in statuses), default=0) / 2**20


def ask(
    settings: Settings,
    url: str | None,
    images: Sequence[Path],
    question: str,
    max_tokens: int | None,
) -> None:
    """Print an answer as it comes: from ``url``, a server running here, or a stack of our own.

    Raises:
        AskError: there is no answer.
    """
    configure_logs("supervisor", level="warning", form=settings.log_format)
    check_pictures(images)
    here = local_url(settings.host, settings.port)
    if url is not None or server_at(here):
        key = settings.secret_of("api_key")
        _print_answer(url or here, images, question, max_tokens, key)
        return

    async def main(own: Settings) -> None:
        async with running_stack(own, own.run_dir / "logs") as stack:
            console.print()
            await stack.guard(
                asyncio.to_thread(_print_answer, stack.url, images, question, max_tokens)
            )

    with own_data_dir(settings) as own:
        _run_until_stopped(main(own))


def _print_answer(
    url: str,
    images: Sequence[Path],
    question: str,
    max_tokens: int | None,
    key: str | None = None,
) -> None:
    for text in stream_answer(url, images, question, max_tokens=max_tokens, key=key):
        console.print(text, end="", markup=False, soft_wrap=True)
    console.print()


@contextmanager
def own_data_dir(settings: Settings) -> Iterator[Settings]:
    """Give a passing stack a data folder of its own, removed afterwards, unless one was set.

    So a demo neither meets a running server's folder nor leaves anything behind. It asks for no
    key, and so is for this machine alone. Raises SettingsError where the settings want it open.
    """
    closed = {} if settings.auth == "none" else {"host": "127.0.0.1", "auth": "none"}
    own = settings.model_copy(update=closed)
    own.check_door()
    if "data_dir" in settings.model_fields_set:
        yield own
        return
    folder = Path(tempfile.mkdtemp(prefix="forebay-"))
    try:
        yield own.model_copy(update={"data_dir": folder})
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def say_where(stack: Stack) -> None:
    """Print where the page and the API are."""
    console.print(f"\n[bold]The page is at {stack.url}/[/]   API: {stack.url}/v1")
    for name, url in stack.page_urls().items():
        console.print(f"The {name} is at {url}/ too")
    console.print("[dim]Ctrl-C stops everything in order.[/]")


def _run_until_stopped(main: Coroutine[Any, Any, None]) -> bool:
    """Run a coroutine; True when a signal ended it."""
    try:
        asyncio.run(main)
    except StopRequestedError:
        return True
    return False
