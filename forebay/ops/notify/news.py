"""What people are told, before it takes the form of a channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal, Protocol

Language = Literal["en", "zh"]

MOST_ITEMS: Final = 20
"""Alerts in one message; of more only the number is told."""

_MARKS: Final = {"critical": "🔴", "warning": "🟠", "resolved": "🟢", "test": "🔵"}
_WORDS: Final = {
    "en": {
        "critical": "critical", "warning": "warning", "resolved": "resolved", "test": "test",
        "since": "since", "runbook": "runbook", "more": "and {count} more",
        "title": "{firing} firing, {resolved} resolved", "test_title": "test message",
    },
    "zh": {
        "critical": "严重", "warning": "警告", "resolved": "已恢复", "test": "测试",
        "since": "开始于", "runbook": "处理手册", "more": "另有 {count} 条",
        "title": "{firing} 条告警，{resolved} 条已恢复", "test_title": "测试消息",
    },
}  # fmt: skip


class PushError(Exception):
    """A channel did not take a message. The text holds no secret and no address."""


@dataclass(frozen=True, slots=True)
class Item:
    """One alert as people read it. ``state``: ``critical``, ``warning``, ``resolved``, ``test``.

    ``since_s``: seconds since the epoch. ``runbook``: where to read on.
    """

    name: str
    state: str
    text: str
    since_s: float
    runbook: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True)
class News:
    """One message. ``source``: which Forebay speaks."""

    items: tuple[Item, ...]
    source: str
    language: Language = "en"

    @property
    def title(self) -> str:
        """One line for a list of messages."""
        words = _WORDS[self.language]
        if all(one.state == "test" for one in self.items):
            return f"[{self.source}] {words['test_title']}"
        resolved = sum(one.state == "resolved" for one in self.items)
        told = words["title"].format(firing=len(self.items) - resolved, resolved=resolved)
        return f"[{self.source}] {told}"

    def lines(self, strong: str = "") -> list[str]:
        """Return a line or two for each alert; ``strong`` stands around a name."""
        words = _WORDS[self.language]
        found = []
        for one in self.items[:MOST_ITEMS]:
            state = words[one.state]
            found.append(f"{_MARKS[one.state]} {strong}{one.name}{strong} ({state}): {one.text}")
            at = datetime.fromtimestamp(one.since_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
            where = f" · {words['runbook']}: {one.runbook}" if one.runbook else ""
            found.append(f"{words['since']} {at}{where}")
        if len(self.items) > MOST_ITEMS:
            found.append(words["more"].format(count=len(self.items) - MOST_ITEMS))
        return found


class Channel(Protocol):
    """One way to people."""

    @property
    def name(self) -> str:
        """Its name in settings, metrics and logs."""
        ...

    async def send(self, news: News) -> None:
        """Send one message. Raises PushError where it was not taken."""
        ...


def clipped(lines: Sequence[str], most_bytes: int) -> str:
    """Return the lines as a text of at most so many bytes in UTF-8, no character cut apart."""
    raw = "\n".join(lines).encode()
    if len(raw) <= most_bytes:
        return raw.decode()
    return raw[: most_bytes - 3].decode(errors="ignore") + "…"
