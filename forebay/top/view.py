"""One frame of ``forebay top``: the state as lines of a terminal, at any size from 60 x 12."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from forebay.top.state import TopState
from forebay.top.words import WORDS, Language, Words, reason_text, value_text

LEAST_COLUMNS: Final = 60
LEAST_LINES: Final = 12

CHARTS: Final = (
    ("requests_rate", "queue_length"),
    ("errors_rate", "oldest_age_s"),
    ("shed_rate", "token_backlog"),
    ("ttft_p95_s", "latency_p50_s"),
    ("tpot_p50_s", "latency_p95_s"),
    ("batch_occupancy", "kv_use"),
    ("gpu_use", "gpu_memory_share"),
    ("cpu", "memory"),
)
"""Two a line, the most telling first; the last ones give way on a small terminal."""

_BARS: Final = " ▁▂▃▄▅▆▇█"
_BARS_ASCII: Final = " .:-=+*#@"
_COLORS: Final = {"green": "green", "yellow": "yellow", "red": "red"}
_STATES: Final = {"ready": "green", "hung": "red", "gone": "red"}
_SHARE_KEYS: Final = frozenset({"gpu_use", "gpu_memory_share", "cpu", "memory", "kv_use"})


def frame(state: TopState, console: Console, language: Language, url: str) -> RenderableType:
    """Return what the terminal shows now, no higher than it is."""
    words, width, height = WORDS[language], console.width, console.height
    if width < LEAST_COLUMNS or height < LEAST_LINES:
        return Text(words["small"])
    head = [_head(state, words, url), _reasons(state, words, url)]
    room = height - len(head) - 1  # the last line is the keys'
    charts = CHARTS[: max(2, min(len(CHARTS), room - 8))]
    room -= len(charts)
    alerts = _alerts(state, words, language, max(2, min(5, room // 2)))
    workers = _workers(state, words, width, room - len(alerts))
    filling = [Text("")] * (room - len(alerts) - len(workers))
    below = [*workers, *alerts, *filling, _foot(state, words)]
    return Group(*head, _charts(state, words, charts, console), *below)


def _head(state: TopState, words: Words, url: str) -> Text:
    color = "red" if state.now is None or state.away else str(state.now["light"]["color"])
    light = Text(f" {words.get(color, color)} ", style=f"bold reverse {_COLORS.get(color, '')}")
    at = "" if state.now is None else time.strftime("%H:%M:%S", time.localtime(state.now["at"]))
    return Text.assemble(light, "  Forebay  ", (printable(url), "dim"), "  ", at, no_wrap=True)


def _reasons(state: TopState, words: Words, url: str) -> Text:
    if state.away is not None:
        return _line(words["away"].format(url=url, why=state.away), "red")
    reasons = state.now["light"]["reasons"] if state.now else []
    said = "; ".join(reason_text(one, words) for one in reasons)
    return _line(said or words["well"], "" if said else "dim")


def _charts(
    state: TopState, words: Words, charts: Sequence[tuple[str, str]], console: Console
) -> Table:
    half = (console.width - 2) // 2
    bars = _BARS_ASCII if console.options.ascii_only else _BARS
    table = Table.grid(padding=0)
    for _ in range(2):
        table.add_column(width=12, no_wrap=True, overflow="ellipsis")
        table.add_column(width=9, no_wrap=True, justify="right")
        table.add_column(width=half - 21, no_wrap=True)
    values = (state.now or {}).get("values") or {}
    for pair in charts:
        row: list[Text] = []
        for key in pair:
            line = spark(state.line_of(key), half - 23, bars, share=key in _SHARE_KEYS)
            told = value_text(key, values.get(key))
            row += [Text(words[key], "dim"), Text(told, "bold"), Text(f" {line} ", "cyan")]
        table.add_row(*row)
    return table


def spark(values: Sequence[float | None], width: int, bars: str, *, share: bool) -> str:
    """Return the last values as bars, one a column; a blank where nothing is known.

    ``share``: the highest bar is 1, not the largest of them.
    """
    last = list(values)[-width:]
    top = 1.0 if share else max((one for one in last if one is not None), default=0.0)
    drawn = [" " if one is None else _bar(one, top, bars) for one in last]
    return "".join(drawn).rjust(width)


def _bar(value: float, top: float, bars: str) -> str:
    if top <= 0 or value <= 0:
        return bars[1]
    return bars[min(len(bars) - 1, 1 + int(value / top * (len(bars) - 2)))]


def _workers(state: TopState, words: Words, width: int, room: int) -> list[Text]:
    head = _line(f"{words['workers']} ({len(state.workers)})", "bold")
    if not state.workers:
        return [head, _line(words["no_worker_known"], "dim")][:room]
    shown = _window(state, room - 1)
    return [head, *(_worker(one, state, words, width) for one in shown)][:room]


def _window(state: TopState, room: int) -> Sequence[Mapping[str, Any]]:
    """Return as many workers as there is room for, the chosen one among them."""
    known = [str(one["id"]) for one in state.workers]
    at = known.index(state.chosen) if state.chosen in known else 0
    first = max(0, min(at - room // 2, len(known) - room))
    return state.workers[first : first + max(room, 0)]


def _worker(worker: Mapping[str, Any], state: TopState, words: Words, width: int) -> Text:
    name, told = str(worker["id"]), str(worker.get("state", ""))
    chosen = name == state.chosen
    about = f"{worker.get('leases') or 0} {words['leases']}"
    kv_use = worker.get("kv_use")
    kv = "" if kv_use is None else f"  KV {kv_use:.0%}"
    place = f"{worker.get('model') or ''} {worker.get('device') or ''}"
    line = Text(no_wrap=True, overflow="ellipsis", style="reverse" if chosen else "")
    line.append("> " if chosen else "  ")
    line.append(f"{printable(name)[:28]:<28} ")
    line.append(f"{printable(told):<9}", _STATES.get(told, "yellow"))
    line.append(f" {about}{kv}  {printable(place)}")
    line.truncate(width, overflow="ellipsis", pad=chosen)
    return line


def _alerts(state: TopState, words: Words, language: Language, room: int) -> list[Text]:
    firing = [one for one in state.alerts if one.get("state") == "firing"]
    head = _line(f"{words['alerts']} ({len(firing)})", "bold")
    if not firing:
        return [head, _line(words["no_alerts"], "dim")]
    shown = firing if len(firing) < room else firing[: room - 2]
    lines = [_alert(one, words, language) for one in shown]
    if len(shown) < len(firing):
        lines.append(_line(words["more"].format(count=len(firing) - len(shown)), "dim"))
    return [head, *lines]


def _alert(alert: Mapping[str, Any], words: Words, language: Language) -> Text:
    text = (alert.get("text") or {}).get(language) or alert.get("key", "")
    silenced = f" ({words['silenced']})" if alert.get("silenced") else ""
    color = "red" if alert.get("severity") == "critical" else "yellow"
    return _line(f"  {text}{silenced}", "dim" if silenced else color)


def _foot(state: TopState, words: Words) -> Text:
    if state.asked is not None:
        return _line(words["sure"].format(subject=state.asked.worker_id), "bold yellow")
    return _line(state.notice or words["keys"], "" if state.notice else "dim")


def _line(text: str, style: str = "") -> Text:
    return Text(printable(text), style, no_wrap=True, overflow="ellipsis")


def printable(text: str) -> str:
    """Return a text without what would move the cursor or color the terminal."""
    return "".join(one if one.isprintable() else "?" for one in text)
