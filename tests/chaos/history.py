"""What clients did and saw, in the order in which they did and saw it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class End:
    """How a task ended, as one observer was told. ``said``: the answer, or the error's code.

    ``said`` is None where an observer is told only that the answer is whole.
    """

    finished: bool
    said: str | None


@dataclass(frozen=True, slots=True)
class Asked:
    """A client sends a question. ``ask`` names the attempt, and may be sent again under one key."""

    ask: str
    prompt: str
    answer: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """The door took it. ``reuse``: "hit" or "joined" where it has another one's answer."""

    ask: str
    task: str
    reuse: str | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """The door said that it did not take it."""

    ask: str
    code: str


@dataclass(frozen=True, slots=True)
class Unsure:
    """The client cannot know whether it was taken: the reply never came, or did not say."""

    ask: str
    why: str


@dataclass(frozen=True, slots=True)
class Followed:
    """A reader asks for a task's stream from after ``after``; None: from its start."""

    task: str
    reader: str
    after: str | None = None


@dataclass(frozen=True, slots=True)
class Grew:
    """New text. ``place``: where a reader may resume, if the event named one."""

    task: str
    reader: str
    text: str
    place: str | None = None


@dataclass(frozen=True, slots=True)
class Restarted:
    """The stream said that the answer starts over."""

    task: str
    reader: str
    place: str | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """The stream said how the task ended."""

    task: str
    reader: str
    end: End


@dataclass(frozen=True, slots=True)
class Broke:
    """The stream broke off without an end."""

    task: str
    reader: str
    why: str


@dataclass(frozen=True, slots=True)
class HungUp:
    """The client went, or asked for a cancel: from here on the task may be cancelled."""

    task: str


@dataclass(frozen=True, slots=True)
class Read:
    """The task's status was read. ``end``: None while it is pending."""

    task: str
    end: End | None


@dataclass(frozen=True, slots=True)
class Unknown:
    """The door said that there is no such task."""

    task: str


@dataclass(frozen=True, slots=True)
class Struck:
    """A fault began, or was over."""

    fault: str


Event = (
    Asked
    | Accepted
    | Refused
    | Unsure
    | Followed
    | Grew
    | Restarted
    | Ended
    | Broke
    | HungUp
    | Read
    | Unknown
    | Struck
)


@dataclass(slots=True)
class History:
    """Every event with the second at which it was noted."""

    began: float = field(default_factory=time.monotonic)
    events: list[tuple[float, Event]] = field(default_factory=list)

    def note(self, event: Event) -> None:
        self.events.append((round(time.monotonic() - self.began, 3), event))

    def __iter__(self) -> Iterator[Event]:
        return (event for _, event in self.events)

    def lines_about(self, names: Iterable[str]) -> list[str]:
        """Return the events of these tasks and asks, a line each."""
        wanted = set(names)
        wanted |= {one.ask for one in self if isinstance(one, Accepted) and one.task in wanted}
        wanted |= {one.task for one in self if isinstance(one, Accepted) and one.ask in wanted}
        return [
            f"{at:9.3f}  {event}"
            for at, event in self.events
            if {getattr(event, "task", None), getattr(event, "ask", None)} & wanted
        ]

    def write(self, path: Path) -> None:
        """Write every event as a line of JSON."""
        with path.open("w", encoding="utf-8") as file:
            for at, event in self.events:
                row = {"at": at, "kind": type(event).__name__, **asdict(event)}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
