"""Whether what clients saw is what was promised. Pure: a history in, a verdict out.

The promise: every accepted task has exactly one visible terminal result, and it is the answer to
its own question; a stream has no gap, whatever it was resumed after; what was refused leaves
nothing behind.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tests.chaos.history import (
    Accepted,
    Asked,
    Broke,
    End,
    Ended,
    Event,
    Followed,
    Grew,
    HungUp,
    Read,
    Refused,
    Restarted,
    Unknown,
    Unsure,
)

BORNE = frozenset({"dead_letter"})
"""Codes with which an accepted task may end: its worker died under it as often as is allowed."""

BORNE_AFTER_HANG_UP = BORNE | {"cancelled"}


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken promise. ``kind``: lost, doubled, gap, wrong, failed, ghost."""

    kind: str
    about: str
    what: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The counts, and every broken promise."""

    accepted: int
    answered: int
    cached: int
    joined: int
    refused: int
    unsure: int
    streams: int
    resumed: int
    restarts: int
    failed: Mapping[str, int]
    violations: tuple[Violation, ...]

    def count(self, kind: str) -> int:
        """Return how many tasks, streams or asks a promise was broken to."""
        return len({one.about for one in self.violations if one.kind == kind})


@dataclass(slots=True)
class _Reader:
    """One client's view of one stream, across its connections."""

    text: str = ""
    place: tuple[int, int] = (-1, -1)
    ended: bool = False
    broken_promise: bool = False


@dataclass(slots=True)
class _Task:
    asks: set[str] = field(default_factory=set)
    ends: list[End] = field(default_factory=list)
    readers: dict[str, _Reader] = field(default_factory=dict)
    hung_up: bool = False


class _Trial:
    def __init__(self) -> None:
        self.asked: dict[str, Asked] = {}
        self.tasks: defaultdict[str, _Task] = defaultdict(_Task)
        self.taken: dict[str, str] = {}
        self.refused: dict[str, str] = {}
        self.reused: defaultdict[str, set[str]] = defaultdict(set)
        self.counts: Counter[str] = Counter()
        self.violations: list[Violation] = []

    def charge(self, kind: str, about: str, what: str) -> None:
        self.violations.append(Violation(kind, about, what))

    def hear(self, event: Event) -> None:
        match event:
            case Asked():
                self.asked[event.ask] = event
            case Accepted():
                self._accepted(event)
            case Refused():
                self.refused[event.ask] = event.code
                self.counts["refused"] += 1
            case Unsure():
                self.counts["unsure"] += 1
            case HungUp():
                self.tasks[event.task].hung_up = True
            case Unknown():
                self.charge("lost", event.task, "an accepted task was said not to exist")
            case Read():
                self._read(event)
            case Followed() | Grew() | Restarted() | Ended():
                self._stream(event)
            case Broke():
                self.counts["broke"] += 1

    def _accepted(self, event: Accepted) -> None:
        if event.reuse is not None:
            self.reused[event.reuse].add(event.task)
        before = self.taken.setdefault(event.ask, event.task)
        if before != event.task:
            self.charge("doubled", event.ask, f"is two tasks: {before} and {event.task}")
        task = self.tasks[event.task]
        task.asks.add(event.ask)
        if len(task.asks) > 1:
            self.charge("wrong", event.task, f"was given to several: {sorted(task.asks)}")

    def _read(self, event: Read) -> None:
        task = self.tasks[event.task]
        if event.end is not None:
            task.ends.append(event.end)
        elif task.ends:
            self.charge("doubled", event.task, "is pending again after its end")

    def _stream(self, event: Followed | Grew | Restarted | Ended) -> None:
        reader = self.tasks[event.task].readers.setdefault(event.reader, _Reader())
        if isinstance(event, Followed):
            self.counts["resumed"] += event.after is not None
            if event.after is None:
                reader.text, reader.place, reader.ended = "", (-1, -1), False
            return
        name = f"{event.task}/{event.reader}"
        if reader.ended:
            self.charge("doubled", name, f"hears of it after its end: {event}")
        if isinstance(event, Ended):
            self._ended(event, reader, name)
            return
        self._moved(event.place, reader, name)
        if isinstance(event, Restarted):
            reader.text = ""
            self.counts["restarts"] += 1
        else:
            reader.text += event.text
            self._grew(event.task, reader, name)

    def _moved(self, place: str | None, reader: _Reader, name: str) -> None:
        if place is None:
            return
        now = place_of(place)
        if now <= reader.place:
            self._gap(reader, name, f"goes back to {place}")
        reader.place = now

    def _grew(self, task: str, reader: _Reader, name: str) -> None:
        answer = self._answer_of(task)
        if answer is not None and not answer.startswith(reader.text):
            self._gap(reader, name, f"{reader.text!r} does not begin {answer!r}")

    def _ended(self, event: Ended, reader: _Reader, name: str) -> None:
        reader.ended = True
        end = event.end
        if end.finished:
            answer = self._answer_of(event.task)
            if answer is not None and reader.text != answer:
                self._gap(reader, name, f"ended with {reader.text!r}, not {answer!r}")
            end = End(True, reader.text if end.said is None else end.said)
        if not reader.broken_promise:
            self.tasks[event.task].ends.append(end)

    def _gap(self, reader: _Reader, name: str, what: str) -> None:
        if not reader.broken_promise:
            self.charge("gap", name, what)
        reader.broken_promise = True

    def _answer_of(self, task: str) -> str | None:
        asks = self.tasks[task].asks
        return self.asked[min(asks)].answer if asks else None

    def judge(self) -> None:
        for name in sorted(set(self.taken.values())):
            self._judge_task(name, self.tasks[name])

    def _judge_task(self, name: str, task: _Task) -> None:
        if not task.ends:
            told = any(reader.ended for reader in task.readers.values())
            if not told:
                self.charge("lost", name, "has no end")
            return
        first = task.ends[0]
        for other in task.ends[1:]:
            if other != first:
                self.charge("doubled", name, f"ended as {first} and as {other}")
                return
        self._judge_end(name, task, first)

    def _judge_end(self, name: str, task: _Task, end: End) -> None:
        if not end.finished:
            self.counts[f"failed {end.said}"] += 1
            borne = BORNE_AFTER_HANG_UP if task.hung_up else BORNE
            if end.said not in borne:
                self.charge("failed", name, f"ended with {end.said}, which nothing explains")
        elif end.said != self._answer_of(name):
            self.charge("wrong", name, f"{end.said!r} is not {self._answer_of(name)!r}")
        else:
            self.counts["answered"] += 1


def check(history: Iterable[Event], runs: Mapping[str, int] | None = None) -> Verdict:
    """Return the verdict on a history that is over.

    ``runs``: how often each prompt was run, told by who answers; what was refused must not be in
    it, and what was answered must.
    """
    trial = _Trial()
    for event in history:
        trial.hear(event)
    trial.judge()
    if runs is not None:
        _judge_runs(trial, runs)
    counts = trial.counts
    failed = {
        name.removeprefix("failed "): count
        for name, count in sorted(counts.items())
        if name.startswith("failed ")
    }
    return Verdict(
        accepted=len(set(trial.taken.values())),
        answered=counts["answered"],
        cached=len(trial.reused["hit"]),
        joined=len(trial.reused["joined"]),
        refused=counts["refused"],
        unsure=counts["unsure"],
        streams=sum(len(task.readers) for task in trial.tasks.values()),
        resumed=counts["resumed"],
        restarts=counts["restarts"],
        failed=failed,
        violations=tuple(trial.violations),
    )


def _judge_runs(trial: _Trial, runs: Mapping[str, int]) -> None:
    taken = {trial.asked[ask].prompt for ask in trial.taken}
    for ask in trial.refused.keys() - trial.taken.keys():
        prompt = trial.asked[ask].prompt
        if prompt not in taken and runs.get(prompt):  # else it ran for who asked the same
            trial.charge("ghost", ask, f"was refused ({trial.refused[ask]}), and run all the same")
    for ask, name in trial.taken.items():
        finished = any(end.finished for end in trial.tasks[name].ends)
        if finished and not runs.get(trial.asked[ask].prompt):
            trial.charge("wrong", name, "was answered and never run")


def place_of(place: str) -> tuple[int, int]:
    """Return a stream's place as something that can be compared."""
    milliseconds, _, sequence = place.partition("-")
    return int(milliseconds), int(sequence or 0)
