"""The command line: serve, api, worker, demo, ask, queue, keys, alerts, canary, top, health, ..."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Annotated

import typer

from forebay import (
    cli_alerts,
    cli_canary,
    cli_keys,
    cli_log_level,
    cli_queue,
    cli_stack,
    cli_top,
    demo,
)
from forebay.access.errors import AccessSetupError
from forebay.admission.profile import ProfileError
from forebay.api.review.errors import PromptsError
from forebay.ask import AskError
from forebay.bundle import BundleError, write_bundle
from forebay.cli_options import AsJson, DataDir, QueueUrl, Sets, settings_of
from forebay.cli_view import complaints, console, print_findings, print_health, print_json
from forebay.config import Settings, SettingsError
from forebay.core.errors import ForebayError
from forebay.core.neighbours import Neighbours
from forebay.demo import SamplesError
from forebay.doctor import examine
from forebay.engine.memory import EngineMemoryError
from forebay.findings import Verdict
from forebay.health_report import CONNECT_MARGIN_S, report
from forebay.log_file import LogFileError
from forebay.logs import configure_logs
from forebay.models.errors import CheckpointError, QuantizationError
from forebay.queue.errors import QueueSetupError
from forebay.queue.groups import Group
from forebay.top.feed import TopError
from forebay.worker.child import STOP_MARGIN_S, ChildFailedError
from forebay.worker.leash import end_with_parent
from forebay.worker.ports import NoPortError, local_url
from forebay.worker.supervisor import StackError

EXPECTED_ERRORS = (
    AccessSetupError,
    AskError,
    BundleError,
    CheckpointError,
    ChildFailedError,
    EngineMemoryError,
    ForebayError,
    LogFileError,
    NoPortError,
    ProfileError,
    PromptsError,
    QuantizationError,
    QueueSetupError,
    SamplesError,
    SettingsError,
    StackError,
    TopError,
)
"""What the user can mend: told in a line, without a traceback."""

app = typer.Typer(
    help="Forebay: burst-proof serving for a vision-language model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.add_typer(cli_queue.app, name="queue")
app.add_typer(cli_keys.app, name="keys")
app.add_typer(cli_alerts.app, name="alerts")
app.add_typer(cli_canary.app, name="canary")
app.command(name="log-level")(cli_log_level.log_level)
app.command()(cli_top.top)

Model = Annotated[str | None, typer.Option(help="Checkpoint folder, or 'demo'.")]
Quantization = Annotated[
    str | None, typer.Option(help="How matrices are kept: auto, none, int8, fp8.")
]
Upstream = Annotated[
    str | None, typer.Option(help="OpenAI-compatible server to answer instead of a model here.")
]
Host = Annotated[str | None, typer.Option(help="Address to listen on.")]
Port = Annotated[int | None, typer.Option(help="Port to listen on; the next free one if taken.")]
PlaygroundPort = Annotated[
    int | None, typer.Option(help="A second port, for the playground; the next free one if taken.")
]
ConsolePort = Annotated[
    int | None, typer.Option(help="A second port, for the console; the next free one if taken.")
]
ApiProcesses = Annotated[int | None, typer.Option(help="API processes at that port.")]
Workers = Annotated[int | None, typer.Option(help="Worker processes.")]
_KIND = {Group.STABLE: "worker", Group.CANARY: "canary"}
"""What a worker's name begins with, unless it is given one."""

Supervised = Annotated[bool, typer.Option(hidden=True, help="End when standard input ends.")]


@app.command()
def serve(
    model: Model = None,
    quantization: Quantization = None,
    upstream: Upstream = None,
    host: Host = None,
    port: Port = None,
    playground_port: PlaygroundPort = None,
    console_port: ConsolePort = None,
    api_processes: ApiProcesses = None,
    workers: Workers = None,
    canary_model: Annotated[
        str | None, typer.Option(help="Checkpoint folder of one canary worker beside them.")
    ] = None,
    canary_quantization: Annotated[
        str | None, typer.Option(help="How the canary keeps matrices: auto, none, int8, fp8.")
    ] = None,
    queue_url: QueueUrl = None,
    data_dir: DataDir = None,
    sets: Sets = None,
) -> None:
    """Run the whole stack: queue server, API, workers."""
    cli_stack.serve(
        settings_of(
            sets,
            model=model,
            quantization=quantization,
            upstream_url=upstream,
            host=host,
            port=port,
            playground_port=playground_port,
            console_port=console_port,
            api_processes=api_processes,
            workers=workers,
            canary_model=canary_model,
            canary_quantization=canary_quantization,
            queue_url=queue_url,
            data_dir=data_dir,
        )
    )


@app.command()
def api(
    host: Host = None,
    port: Port = None,
    api_processes: ApiProcesses = None,
    queue_url: QueueUrl = None,
    sets: Sets = None,
    supervised: Supervised = False,
    name: Annotated[str, typer.Option(hidden=True)] = "api",
    listen_fd: Annotated[list[int] | None, typer.Option(hidden=True)] = None,
    counts_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
    row: Annotated[int, typer.Option(hidden=True)] = 0,
) -> None:
    """Run the API alone; needs a queue_url and a worker elsewhere."""
    settings = settings_of(
        sets, host=host, port=port, api_processes=api_processes, queue_url=queue_url
    )
    if settings.queue_url is None:
        raise SettingsError("queue_url is not set: an API alone needs the queue that it fills")
    _leash(settings, supervised)
    if settings.api_processes > 1 and not listen_fd:
        cli_stack.serve_doors(settings)
        return
    rows = 1 if counts_fd is None else settings.api_processes
    neighbours = Neighbours(counts_fd, row, rows)
    from forebay.api import serve as door  # noqa: PLC0415 - other commands need no web server

    door.run(settings, listen_fds=listen_fd or (), name=name, neighbours=neighbours)


@app.command()
def worker(
    name: Annotated[
        str | None,
        typer.Option(help="Unique among the queue's workers; unset: this machine's name."),
    ] = None,
    group: Annotated[
        str | None, typer.Option(help="stable, or canary: it gets the share that is set.")
    ] = None,
    model: Model = None,
    quantization: Quantization = None,
    upstream: Upstream = None,
    queue_url: QueueUrl = None,
    data_dir: DataDir = None,
    sets: Sets = None,
    supervised: Supervised = False,
) -> None:
    """Run one worker alone; needs a queue_url."""
    settings = settings_of(
        sets,
        model=model,
        quantization=quantization,
        upstream_url=upstream,
        worker_group=group,
        queue_url=queue_url,
        data_dir=data_dir,
    )
    _leash(settings, supervised)
    from forebay.worker import main as hands  # noqa: PLC0415 - other commands load no torch

    # A worker takes back the leases of its own name at its start: no two may share one.
    hands.run(settings, name or f"{_KIND[settings.group]}-{platform.node()}")


@app.command(name="demo")
def demo_command(
    model: Model = None,
    quantization: Quantization = None,
    port: Port = None,
    data_dir: DataDir = None,
    once: Annotated[bool, typer.Option(help="Exit after the burst.")] = False,
    count: Annotated[int, typer.Option(help="Requests of the burst.", min=1)] = demo.BURST,
    samples: Annotated[
        Path, typer.Option(help="Folder with samples.json and its pictures.")
    ] = demo.SAMPLES_FOLDER,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the figures to this file.")
    ] = None,
    sets: Sets = None,
) -> None:
    """Run the stack and send it a burst of sample pictures at once."""
    settings = settings_of(
        sets, model=model, quantization=quantization, port=port, data_dir=data_dir
    )
    with cli_stack.own_data_dir(settings) as own:
        whole = cli_stack.run_demo(
            own, samples=samples, count=count, once=once, json_file=json_file
        )
    raise typer.Exit(0 if whole else 1)


@app.command()
def ask(
    parts: Annotated[
        list[str], typer.Argument(help="Pictures, then the question.", metavar="IMAGE... QUESTION")
    ],
    url: Annotated[str | None, typer.Option(help="A running server.")] = None,
    model: Model = None,
    max_tokens: Annotated[int | None, typer.Option(min=1)] = None,
    sets: Sets = None,
) -> None:
    """Ask about a picture; the answer streams into the terminal."""
    *images, question = parts
    settings = settings_of(sets, model=model)
    cli_stack.ask(settings, url, [Path(image) for image in images], question, max_tokens)


@app.command()
def doctor(
    model: Model = None,
    upstream: Upstream = None,
    port: Port = None,
    queue_url: QueueUrl = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
    bundle: Annotated[
        Path | None, typer.Option(help="Also write all that helps to help, without secrets: a ZIP.")
    ] = None,
    sets: Sets = None,
) -> None:
    """Check this machine, and say the mend for what is wrong."""
    settings = settings_of(
        sets,
        model=model,
        upstream_url=upstream,
        port=port,
        queue_url=queue_url,
        data_dir=data_dir,
    )
    findings = examine(settings)
    if bundle is not None:
        names = write_bundle(bundle, settings, findings)
        complaints.print(f"{bundle}: {len(names)} files. Look through it before you send it.")
    if as_json:
        print_json([asdict(one) for one in findings])
    else:
        print_findings(findings)
    raise typer.Exit(any(one.verdict is Verdict.BAD for one in findings))


@app.command()
def health(
    url: Annotated[
        str | None, typer.Option(help="A running server; unset: this machine's.")
    ] = None,
    as_json: AsJson = False,
    sets: Sets = None,
) -> None:
    """Ask the model for a token; exit 1 when it gives none. For cron."""
    settings = settings_of(sets)
    found = report(
        url or local_url(settings.host, settings.port),
        key=settings.secret_of("api_key"),
        timeout_s=settings.health_timeout_s + CONNECT_MARGIN_S,
    )
    if as_json:
        typer.echo(json.dumps(found.to_dict(), ensure_ascii=False))
    else:
        print_health(found)
    raise typer.Exit(not found.service_healthy)


@app.command()
def version() -> None:
    """Print the version."""
    console.print(installed_version("forebay"))


def main() -> None:
    """Run the command line; what the user can mend is told in a line."""
    configure_logs("cli", level="warning")  # a command that runs for long says more, and how
    try:
        app()
    except EXPECTED_ERRORS as error:
        complaints.print(f"forebay: {error}", style="red", markup=False, soft_wrap=True)
        raise SystemExit(1) from error


def _leash(settings: Settings, supervised: bool) -> None:
    if supervised:
        end_with_parent(settings.drain_s + STOP_MARGIN_S)
