"""``forebay keys``: make, list, show, rotate and revoke API keys."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated, TypeVar

import typer
from rich.table import Column, Table

from forebay.access.audit import AuditTrail, deed_of_cli
from forebay.access.caller import Allowance, Scope
from forebay.access.key_store import KeyStore
from forebay.access.keys import ApiKey, KeyId, public_form
from forebay.access.opening import forget_keys, open_keys
from forebay.cli_options import AsJson, DataDir, QueueUrl, Sets, settings_of
from forebay.cli_view import complaints, console, print_json
from forebay.config import Settings
from forebay.core.request import DEFAULT_TENANT, Priority, Tenant
from forebay.queue.opening import OpenQueue
from forebay.queue_here import on_queue

T = TypeVar("T")
DAY_S = 86_400.0

app = typer.Typer(help="API keys: who may come in.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(help="The key's id.", metavar="ID")]


@app.command()
def create(
    label: Annotated[str, typer.Argument(help="What the key is for.")],
    scope: Annotated[
        list[Scope] | None, typer.Option(help="What it may do; repeatable: infer, tasks, admin.")
    ] = None,
    tenant: Annotated[str, typer.Option(help="Whose tasks it sees.")] = DEFAULT_TENANT,
    days: Annotated[float | None, typer.Option(help="Days until it expires.", min=0.001)] = None,
    top_priority: Annotated[
        str, typer.Option(help="Most urgent priority it may ask for: vip, normal, batch, 0 to 9.")
    ] = "0",
    weight: Annotated[float, typer.Option(help="The tenant's share beside others.")] = 1.0,
    rate_per_s: Annotated[float | None, typer.Option(help="Requests a second.")] = None,
    burst: Annotated[int, typer.Option(help="Requests at once before that counts.")] = 10,
    max_waiting: Annotated[int | None, typer.Option(help="Tasks of it that may wait.")] = None,
    max_waiting_tokens: Annotated[int | None, typer.Option(help="Their tokens.")] = None,
    max_unfinished: Annotated[int | None, typer.Option(help="Tasks waiting or running.")] = None,
    tokens_per_minute: Annotated[int | None, typer.Option(help="Tokens a minute.")] = None,
    tokens_per_day: Annotated[int | None, typer.Option(help="Tokens a day.")] = None,
    as_json: AsJson = False,
    queue_url: QueueUrl = None,
    data_dir: DataDir = None,
    sets: Sets = None,
) -> None:
    """Make a key. It is shown this once, and kept nowhere as it is."""
    try:
        allowance = Allowance(
            rate_per_s,
            burst,
            max_waiting,
            max_waiting_tokens,
            max_unfinished,
            tokens_per_minute,
            tokens_per_day,
            weight,
            Priority.named(top_priority),
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    scopes = frozenset(scope or (Scope.INFER, Scope.TASKS))
    lifetime_s = None if days is None else days * DAY_S

    async def work(store: KeyStore) -> tuple[ApiKey, str]:
        return await store.create(label, scopes, Tenant(tenant), allowance, lifetime_s)

    settings = settings_of(sets, queue_url=queue_url, data_dir=data_dir)
    _tell_new(*_run(settings, work, "key.create", label), as_json=as_json)


@app.command(name="list")
def list_command(
    as_json: AsJson = False,
    queue_url: QueueUrl = None,
    data_dir: DataDir = None,
    sets: Sets = None,
) -> None:
    """List every key, the newest first; those that ended for a month."""
    keys = _run(
        settings_of(sets, queue_url=queue_url, data_dir=data_dir), lambda store: store.list_keys()
    )
    if as_json:
        print_json([public_form(key) for key in keys])
        return
    columns = ("Label", "Tenant", "Scopes", "Made", "State")
    table = Table(Column("ID", no_wrap=True), *columns)
    for key in keys:
        scopes = " ".join(sorted(key.scopes))
        table.add_row(key.key_id, key.label, key.tenant, scopes, _when(key.created_s), _state(key))
    console.print(table)


@app.command()
def show(
    key_id: Id, queue_url: QueueUrl = None, data_dir: DataDir = None, sets: Sets = None
) -> None:
    """Show what is known of a key, as JSON; never the key."""
    key = _run(
        settings_of(sets, queue_url=queue_url, data_dir=data_dir),
        lambda store: store.get(KeyId(key_id)),
    )
    print_json(public_form(key))


@app.command()
def rotate(
    key_id: Id,
    overlap_hours: Annotated[
        float, typer.Option(help="Hours for which the key before stays good.", min=0, max=8784)
    ] = 24.0,
    as_json: AsJson = False,
    queue_url: QueueUrl = None,
    data_dir: DataDir = None,
    sets: Sets = None,
) -> None:
    """Make a new key of the same id; it is shown this once."""

    async def work(store: KeyStore) -> tuple[ApiKey, str]:
        return await store.rotate(KeyId(key_id), overlap_hours * 3600)

    settings = settings_of(sets, queue_url=queue_url, data_dir=data_dir)
    _tell_new(*_run(settings, work, "key.rotate", key_id), as_json=as_json)


@app.command()
def revoke(
    key_id: Id,
    as_json: AsJson = False,
    queue_url: QueueUrl = None,
    data_dir: DataDir = None,
    sets: Sets = None,
) -> None:
    """End a key, within two seconds everywhere."""
    settings = settings_of(sets, queue_url=queue_url, data_dir=data_dir)
    key = _run(settings, lambda store: store.revoke(KeyId(key_id)), "key.revoke", key_id)
    if as_json:
        print_json(public_form(key))
    else:
        console.print(f"{key.key_id} is revoked", markup=False)


@app.command()
def clear(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    queue_url: QueueUrl = None,
    data_dir: DataDir = None,
    sets: Sets = None,
) -> None:
    """Forget every key: for when the file with their pepper is lost, and none works any more."""
    settings = settings_of(sets, queue_url=queue_url, data_dir=data_dir)
    if not yes:
        typer.confirm("Forget every API key? Their users will need new ones.", abort=True)

    forgotten = on_queue(
        settings,
        lambda opened: forget_keys(opened.access, settings.queue_name),
        deed_of_cli("key.clear", "keys"),
    )
    console.print(f"{forgotten} keys are forgotten", markup=False)


def _run(
    settings: Settings,
    work: Callable[[KeyStore], Awaitable[T]],
    action: str | None = None,
    target: str = "",
) -> T:
    """Do ``work`` on the queue's keys; what changes one is recorded as ``action``."""

    async def on_keys(opened: OpenQueue) -> T:
        pepper_file = settings.pepper_file(settings.data_dir)
        store = await open_keys(pepper_file, opened.access, settings.queue_name)
        if action is None:
            return await work(store)
        trail = AuditTrail(opened.access, settings.queue_name)
        async with trail.recorded(deed_of_cli(action, target)) as open_deed:
            done = await work(store)
            key = done[0] if isinstance(done, tuple) else done
            open_deed.target = getattr(key, "key_id", target)
            return done

    return on_queue(settings, on_keys)


def _tell_new(key: ApiKey, text: str, *, as_json: bool) -> None:
    if as_json:
        print_json({**public_form(key), "key": text})
        return
    typer.echo(text)
    complaints.print(
        f"This is key {key.key_id}, shown this once: keep it now. Only a hash of it is stored.",
        markup=False,
    )


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")


def _state(key: ApiKey) -> str:
    if key.revoked_s is not None:
        return f"revoked {_when(key.revoked_s)}"
    if key.expires_s is None:
        return "good"
    word = "good until" if key.is_live(time.time()) else "expired"
    return f"{word} {_when(key.expires_s)}"
