"""What ``forebay queue`` shows: tables of tasks, and one task whole."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from rich.table import Table
from rich.text import Text

from forebay.cli_view import console
from forebay.queue.ports import QueueDepth, TaskRecord

LONGEST_CELL: Final = 70


def print_tasks(tasks: Sequence[TaskRecord], depth: QueueDepth, shown: str) -> None:
    """Print a line with the queue's size and a table of tasks."""
    drained = ", drained" if depth.drained else ""
    console.print(
        f"{depth.waiting} waiting ({depth.waiting_tokens} tokens, oldest {depth.oldest_s:.0f} s, "
        f"{depth.delayed} delayed), {depth.leased} leased, {depth.dead} dead{drained}"
    )
    if not tasks:
        console.print(f"no {shown} tasks of this kind")
        return
    table = _table("id", "state", "priority", "tenant", "model", "age", "tries")
    for one in tasks:
        table.add_row(
            Text(one.task_id),
            one.state.value,
            str(one.priority),
            _cell(one.tenant),
            _cell(one.model),
            _age(one.created_s),
            str(one.deliveries),
        )
    console.print(table)


def print_dead_letters(tasks: Sequence[TaskRecord]) -> None:
    """Print dead letters, each with why it died."""
    if not tasks:
        console.print("no dead letters")
        return
    table = _table("id", "tenant", "died", "tries", "why")
    for one in tasks:
        why = one.error.message if one.error else ""
        died = _age(one.finished_s) if one.finished_s else ""
        table.add_row(
            Text(one.task_id), _cell(one.tenant), f"{died} ago", str(one.deliveries), Text(why)
        )
    console.print(table)


def print_task(task: TaskRecord) -> None:
    """Print what is known of one task, a line each; what is not known is left out."""
    lines = {
        "id": task.task_id,
        "state": task.state.value,
        "model": task.model,
        "tenant": task.tenant,
        "priority": str(task.priority),
        "created": _moment(task.created_s),
        "leased": _moment(task.leased_s),
        "finished": _moment(task.finished_s),
        "deliveries": str(task.deliveries),
        "tasks ahead": _known(task.position),
        "starts in": f"{task.eta_s:.0f} s" if task.eta_s is not None else "",
        "reused": task.reuse.value if task.reuse else "",
        "tokens": _tokens(task),
        "reason": task.finish_reason or "",
        "error": f"{task.error.code}: {task.error.message}" if task.error else "",
        "answer": task.text or "",
    }
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in lines.items():
        if value:
            table.add_row(name, Text(value))
    console.print(table)


def _table(*columns: str) -> Table:
    return Table(*columns, box=None, padding=(0, 2, 0, 0))


def _cell(text: str) -> Text:
    line = " ".join(text.split())
    return Text(line if len(line) <= LONGEST_CELL else line[: LONGEST_CELL - 1] + "…")


def _known(value: int | None) -> str:
    return "" if value is None else str(value)


def _tokens(task: TaskRecord) -> str:
    usage = task.usage
    return f"{usage.prompt_tokens} in, {usage.completion_tokens} out" if usage else ""


def _moment(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _age(since_s: float) -> str:
    """Return a time from now in the largest unit that is at least one."""
    seconds = max(0.0, time.time() - since_s)
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
