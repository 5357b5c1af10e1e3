"""Judges the rules every few seconds, without Prometheus: one API process for all of a queue."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import structlog

from forebay.core.background import Background
from forebay.core.errors import QueueUnavailableError
from forebay.ops.alerts.evaluation import evaluate
from forebay.ops.alerts.rules import Rule, wanted_series
from forebay.ops.alerts.series import History, Sample
from forebay.ops.alerts.silences import Silence
from forebay.ops.alerts.snapshot import of_instance, snapshot
from forebay.ops.alerts.states import Alert, Stage, advance
from forebay.ops.alerts.store import SILENT_REPORT_S, AlertStore
from forebay.ops.alerts.telling import Teller
from forebay.ops.metrics import Metrics

log = structlog.get_logger("forebay.alerts")

EVERY_S: Final = 15.0
LEAD_INTERVALS: Final = 2
LEAD_MARGIN_S: Final = 15.0
"""A leader keeps the lead through a look that fails, or one with a slow channel."""


@dataclass(frozen=True, slots=True)
class WatchTerms:
    """``process``: a name that no other process has. ``judges``: else it only measures."""

    process: str
    every_s: float = EVERY_S
    judges: bool = True


class AlertWatch:
    """An async context manager; while it is entered, rules are judged.

    All processes measure and report, and remember what the others report, so any may take over; the
    one that has the lead judges, keeps and tells. While the queue's server is away nobody can take
    the lead, and the process that had it goes on from memory.
    """

    def __init__(
        self,
        store: AlertStore,
        metrics: Metrics,
        rules: Sequence[Rule],
        teller: Teller,
        measure: Callable[[], Awaitable[None]],
        terms: WatchTerms,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._metrics = metrics
        self._rules = tuple(rules)
        self._teller = teller
        self._measure = measure
        self.process = terms.process
        self._every_s = terms.every_s
        self._judges = terms.judges
        self._now = clock
        self._history = History(wanted_series(self._rules), terms.every_s)
        self._leads = False
        self._alerts: dict[str, Alert] = {}
        self._silences: list[Silence] = []
        self._heard: dict[str, tuple[float, float]] = {}  # process -> its time, ours when it came
        self._looking = Background("alerts", _failed)

    @property
    def leads(self) -> bool:
        """Whether this process judges."""
        return self._leads

    async def __aenter__(self) -> Self:
        self._looking.start(self._look_for_ever())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._looking.stop()
        if self._leads:
            try:
                await self._store.resign(self.process)
            except QueueUnavailableError as error:
                log.debug("alerts_lead_kept", reason=error.message)  # it runs out by itself

    async def _look_for_ever(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(self._every_s)

    async def look(self) -> None:
        """Measure, report, and judge if it is for this process to do so."""
        await self._measure()
        if not self._judges:
            return
        now_s = self._now()
        samples = snapshot(self._metrics.registry, self._history)
        self._history.add(now_s, of_instance(samples, self.process))
        self._history.forget(now_s)
        try:
            await self._agree(samples, now_s)
            away = False
        except QueueUnavailableError as error:
            log.debug("alerts_alone", reason=error.message)
            away = True
        if self._leads:
            await self._judge(now_s, away=away)
        else:
            self._metrics.alerts_judged.set(math.nan)
        firing = [one for one in self._alerts.values() if one.stage is Stage.FIRING]
        self._metrics.alerts_firing.set(len(firing))

    async def _agree(self, samples: list[Sample], now_s: float) -> None:
        """Report, hear the others, and see who has the lead."""
        await self._store.report(self.process, now_s, samples)
        await self._hear(now_s)
        leads = await self._store.lead(self.process, LEAD_INTERVALS * self._every_s + LEAD_MARGIN_S)
        if leads and not self._leads:
            self._alerts = await self._store.alerts()
            log.info("alerts_lead_taken", owner=self.process)
        elif not leads:
            self._alerts = {}
        self._leads = leads
        if leads:
            self._silences = await self._store.silences(now_s)

    async def _hear(self, now_s: float) -> None:
        """Take what the other processes measured; times are ours, for their clocks may differ."""
        reports = await self._store.reports()
        for process, (at_s, samples) in reports.items():
            told_s, heard_s = self._heard.get(process, (None, now_s))
            if process == self.process:
                continue
            if told_s != at_s:
                self._heard[process] = (at_s, now_s)
                self._history.add(now_s, of_instance(samples, process))
            elif now_s - heard_s > SILENT_REPORT_S:
                await self._store.forget_report(process)
        self._heard = {one: heard for one, heard in self._heard.items() if one in reports}

    async def _judge(self, now_s: float, *, away: bool) -> None:
        self._metrics.alerts_judged.set(now_s)
        found = {one.name: evaluate(one.node, self._history, now_s) for one in self._rules}
        moved = advance(self._alerts, self._rules, found, now_s)
        changes = [self._change(one) for one in moved.changed if one.stage is not Stage.PENDING]
        for one in changes:
            log.warning("alert", rule=one["rule"], alert=one["key"], stage=one["stage"])
        if not (away or await self._keep(moved.alerts, changes)):
            return
        self._alerts = moved.alerts
        told = await self._teller.tell(self._alerts, self._silences, now_s)
        if told != self._alerts:
            self._alerts = told
            if not away:
                await self._keep(told, [])

    async def _keep(self, alerts: dict[str, Alert], changes: list[dict[str, Any]]) -> bool:
        """Keep alerts in the store; False where the lead is another's by now."""
        try:
            self._leads = await self._store.keep(self.process, alerts, changes)
        except QueueUnavailableError as error:
            log.debug("alerts_not_kept", reason=error.message)
        return self._leads

    def _change(self, alert: Alert) -> dict[str, Any]:
        """Return what the history has of a change."""
        return {
            "at": alert.since_s,
            "rule": alert.rule,
            "key": alert.key,
            "stage": alert.stage.value,
            "value": alert.value,
            "text": self._teller.item(alert).text,
        }


def _failed(error: BaseException) -> None:
    log.error("alerts_failed", exc_info=error)
