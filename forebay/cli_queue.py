"""``forebay queue``: look into a queue, end and retry tasks, stop its leases, back it up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from forebay.access.audit import AuditTrail, deed_of_cli
from forebay.cli_options import AsJson, DataDir, QueueUrl, Sets, settings_of
from forebay.cli_tasks_view import print_dead_letters, print_task, print_tasks
from forebay.cli_view import console, print_json
from forebay.config import Settings
from forebay.core.errors import TaskNotFoundError
from forebay.core.request import Priority, TaskId, Tenant
from forebay.queue import backup as backups
from forebay.queue.address import Form
from forebay.queue.errors import BackupError
from forebay.queue.opening import OpenQueue
from forebay.queue.ports import Listing, QueueDepth, TaskRecord
from forebay.queue.rights import acl_command
from forebay.queue_here import on_queue

PAGE = 500
DRAIN_POLL_S = 0.5

app = typer.Typer(help="Look into the queue and mend it.", no_args_is_help=True)


class Shown(StrEnum):
    """What ``list`` shows: names of the lifecycle rather than of keys."""

    WAITING = "waiting"
    DELAYED = "delayed"
    SUSPECTS = "suspects"
    LEASED = "leased"
    DEAD = "dead"

    @property
    def listing(self) -> Listing:
        """Return the queue's own name of it."""
        return Listing[self.name]


Ids = Annotated[list[str], typer.Argument(help="Task ids.", metavar="ID...")]
Limit = Annotated[int, typer.Option(help="Most tasks to show.", min=1, max=100_000)]
TenantName = Annotated[str | None, typer.Option(help="Only this tenant's.")]


@app.command(name="list")
def list_command(
    state: Annotated[Shown, typer.Option(help="Which tasks.")] = Shown.WAITING,
    tenant: TenantName = None,
    priority: Annotated[
        str | None, typer.Option(help="Only this priority: vip, normal, batch or 0 to 9.")
    ] = None,
    limit: Limit = 50,
    as_json: AsJson = False,
    queue_url: QueueUrl = None,
    data_dir: DataDir = None,
    sets: Sets = None,
) -> None:
    """List tasks that have not ended, and the queue's size."""
    level = _level(priority)

    async def work(opened: OpenQueue) -> tuple[list[TaskRecord], QueueDepth]:
        of = Tenant(tenant) if tenant else None
        return await _tasks(opened, state.listing, limit, level, of), await opened.queue.depth()

    tasks, depth = on_queue(settings_of(sets, queue_url=queue_url, data_dir=data_dir), work)
    if as_json:
        print_json({"depth": asdict(depth), "tasks": [asdict(one) for one in tasks]})
    else:
        print_tasks(tasks, depth, state.value)


@app.command()
def show(
    task_id: Annotated[str, typer.Argument(help="Task id.", metavar="ID")],
    as_json: AsJson = False,
    queue_url: QueueUrl = None,
    data_dir: DataDir = None,
    sets: Sets = None,
) -> None:
    """Show all that is known of one task."""

    async def work(opened: OpenQueue) -> TaskRecord | None:
        return await opened.queue.get(TaskId(task_id))

    record = on_queue(settings_of(sets, queue_url=queue_url, data_dir=data_dir), work)
    if record is None:
        raise TaskNotFoundError(f"there is no task {task_id}, or its result has expired")
    if as_json:
        print_json(asdict(record))
    else:
        print_task(record)


@app.command()
def cancel(
    task_ids: Ids, queue_url: QueueUrl = None, data_dir: DataDir = None, sets: Sets = None
) -> None:
    """End tasks: waiting ones at once, running ones within a heartbeat."""
    settings = settings_of(sets, queue_url=queue_url, data_dir=data_dir)
    act = _Act("task.cancel", "cancelled", lambda opened: opened.queue.cancel)
    _act_on(settings, task_ids, act)


@app.command()
def retry(
    task_ids: Annotated[list[str] | None, typer.Argument(metavar="ID...")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every dead letter.")] = False,
    queue_url: QueueUrl = None,
    data_dir: DataDir = None,
    sets: Sets = None,
) -> None:
    """Send dead letters back into the queue; each runs alone."""
    settings = settings_of(sets, queue_url=queue_url, data_dir=data_dir)
    if every == bool(task_ids):
        raise typer.BadParameter("name the tasks, or give --all")
    if every:
        found = on_queue(settings, lambda opened: _tasks(opened, Listing.DEAD, None, None, None))
        task_ids = [one.task_id for one in found]
    act = _Act("dead_letter.retry", "sent back", lambda opened: opened.operator.retry)
    _act_on(settings, task_ids or [], act)


@app.command()
def drop(
    task_ids: Ids, queue_url: QueueUrl = None, data_dir: DataDir = None, sets: Sets = None
) -> None:
    """Forget dead letters, and what they asked for."""
    settings = settings_of(sets, queue_url=queue_url, data_dir=data_dir)
    act = _Act("dead_letter.drop", "dropped", lambda opened: opened.operator.drop)
    _act_on(settings, task_ids, act)


@app.command()
def dead(
    limit: Limit = 50,
    as_json: AsJson = False,
    queue_url: QueueUrl = None,
    data_dir: DataDir = None,
    sets: Sets = None,
) -> None:
    """List dead letters with why they died; `retry` or `drop` them."""

    async def work(opened: OpenQueue) -> list[TaskRecord]:
        return await _tasks(opened, Listing.DEAD, limit, None, None)

    tasks = on_queue(settings_of(sets, queue_url=queue_url, data_dir=data_dir), work)
    if as_json:
        print_json([asdict(one) for one in tasks])
    else:
        print_dead_letters(tasks)


@app.command()
def drain(
    off: Annotated[bool, typer.Option("--off", help="Give out leases again.")] = False,
    wait_s: Annotated[
        float, typer.Option("--wait", help="Wait so many seconds for running tasks.", min=0)
    ] = 0,
    queue_url: QueueUrl = None,
    data_dir: DataDir = None,
    sets: Sets = None,
) -> None:
    """Give out no more leases: running tasks end, waiting ones are kept, new ones are taken."""
    settings = settings_of(sets, queue_url=queue_url, data_dir=data_dir)
    deed = deed_of_cli("queue.undrain" if off else "queue.drain", "queue")

    async def work(opened: OpenQueue) -> int:
        async with AuditTrail(opened.access, settings.queue_name).recorded(deed):
            await opened.operator.drain(not off)
        return 0 if off else await _still_leased(opened, wait_s)

    left = on_queue(settings, work)
    if off:
        console.print("The queue gives out leases again.")
    else:
        console.print(f"The queue is drained: {left} running, no new leases until `drain --off`.")
    raise typer.Exit(1 if left and wait_s else 0)


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="File to write.")],
    data_dir: DataDir = None,
    sets: Sets = None,
) -> None:
    """Back up the private queue, running or not, with the pictures that its tasks need."""
    settings = _private(settings_of(sets, data_dir=data_dir))
    manifest, size = backups.back_up(settings.queue_dir, settings.blob_dir, file.absolute())
    console.print(
        f"{file}: {manifest.tasks} tasks, {manifest.pictures} pictures, {size / 2**20:.1f} MiB"
    )
    if manifest.missing:
        console.print(f"[yellow]{len(manifest.missing)} pictures were gone already[/]")


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="File of a backup.")],
    force: Annotated[
        bool, typer.Option("--force", help="Set a queue that is there aside.")
    ] = False,
    data_dir: DataDir = None,
    sets: Sets = None,
) -> None:
    """Bring a backup back into a data folder that no queue runs on."""
    settings = _private(settings_of(sets, data_dir=data_dir))
    manifest = backups.restore(file, settings.queue_dir, settings.blob_dir, force=force)
    console.print(
        f"{settings.queue_dir}: {manifest.tasks} tasks as of {manifest.made}, "
        f"{manifest.pictures} pictures"
    )


@app.command()
def acl(
    user: Annotated[str | None, typer.Option(help="Name of the server's user.")] = None,
    queue_url: QueueUrl = None,
    sets: Sets = None,
) -> None:
    """Print the command that gives a server's user what the queue needs, and nothing else."""
    settings = settings_of(sets, queue_url=queue_url)
    form = settings.queue_address().form if settings.queue_url else Form.SINGLE
    typer.echo(acl_command(settings.queue_name, user or settings.queue_username or None, form))


def _level(text: str | None) -> Priority | None:
    try:
        return None if text is None else Priority.named(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--priority") from error


async def _tasks(
    opened: OpenQueue,
    listing: Listing,
    limit: int | None,
    priority: Priority | None,
    tenant: Tenant | None,
) -> list[TaskRecord]:
    """Return up to ``limit`` tasks, page by page; all of them for None."""
    found: list[TaskRecord] = []
    cursor = ""
    while limit is None or len(found) < limit:
        wanted = PAGE if limit is None else min(PAGE, limit - len(found))
        page = await opened.operator.list_tasks(
            listing, cursor=cursor, limit=wanted, priority=priority, tenant=tenant
        )
        found.extend(page.tasks)
        cursor = page.cursor
        if not cursor:
            break
    return found


async def _still_leased(opened: OpenQueue, wait_s: float) -> int:
    until = asyncio.get_running_loop().time() + wait_s
    while True:
        leased = (await opened.queue.depth()).leased
        if not leased or asyncio.get_running_loop().time() >= until:
            return leased
        await asyncio.sleep(DRAIN_POLL_S)


@dataclass(frozen=True, slots=True)
class _Act:
    """What is done to tasks: its name in the audit, what is said of it, and how."""

    name: str
    done: str
    way: Callable[[OpenQueue], Callable[[TaskId], Awaitable[bool]]]

    async def on(self, opened: OpenQueue, trail: AuditTrail, task_id: TaskId) -> bool:
        """Do it to one task and record it; whether it could be done."""
        well = await self.way(opened)(task_id)
        deed = deed_of_cli(self.name, task_id)
        await trail.note(deed if well else replace(deed, outcome=TaskNotFoundError.code))
        return well


def _act_on(settings: Settings, task_ids: Sequence[str], act: _Act) -> None:
    """Do the same to each task and say what came of it; exit 1 where it came to nothing."""

    async def work(opened: OpenQueue) -> list[bool]:
        trail = AuditTrail(opened.access, settings.queue_name)
        return [await act.on(opened, trail, TaskId(one)) for one in task_ids]

    results = on_queue(settings, work)
    for task_id, well in zip(task_ids, results, strict=True):
        said = act.done if well else "[red]no such task in a state for it[/]"
        console.print(task_id, end="  ", markup=False)
        console.print(said)
    raise typer.Exit(0 if all(results) else 1)


def _private(settings: Settings) -> Settings:
    if settings.queue_url is not None:
        raise BackupError(
            "queue_url names a server of your own.",
            mend="Back it up by its own means: valkey-cli --rdb FILE, and the folder of pictures.",
        )
    return settings
