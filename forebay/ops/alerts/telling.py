"""Tells people of alerts, by every channel, each as often as it has to be told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from forebay.ops.alerts.rules import Rule
from forebay.ops.alerts.silences import Silence
from forebay.ops.alerts.states import Alert, Stage
from forebay.ops.metrics import Metrics
from forebay.ops.notify.news import Channel, Item, Language, News, PushError

log = structlog.get_logger("forebay.alerts")

MOST_S: Final = 12.0
"""For one message: who judges must not be held up for as long as it has the lead."""

FIRST_PAUSE_S: Final = 15.0
LONGEST_PAUSE_S: Final = 900.0
"""Between two attempts at a channel that fails: it doubles up to here."""


@dataclass(frozen=True, slots=True)
class TellingTerms:
    """How alerts are told. ``repeat_s``: how often one that goes on firing is told again.

    ``source``: which Forebay speaks. ``runbook_url``: the page with an entry for each rule.
    """

    repeat_s: float = 4 * 3600.0
    source: str = "Forebay"
    language: Language = "en"
    runbook_url: str = "docs/runbook.md"


@dataclass(slots=True)
class _Trouble:
    """A channel's failures in a row, and when it is tried again (monotonic)."""

    times: int = 0
    again_s: float = 0.0


class Teller:
    """The channels of one process."""

    def __init__(
        self,
        channels: Sequence[Channel],
        rules: Sequence[Rule],
        metrics: Metrics,
        terms: TellingTerms | None = None,
    ) -> None:
        self._channels = {one.name: one for one in channels}
        self._rules = {one.name: one for one in rules}
        self._metrics = metrics
        self.terms = terms or TellingTerms()
        self._troubles = {name: _Trouble() for name in self._channels}

    @property
    def channels(self) -> tuple[str, ...]:
        """The names of the channels that are set up."""
        return tuple(self._channels)

    async def tell(
        self, alerts: Mapping[str, Alert], silences: Sequence[Silence], now_s: float
    ) -> dict[str, Alert]:
        """Tell what is to be told; return the alerts with who knows of them."""
        heard = {
            key: one
            for key, one in alerts.items()
            if one.stage is Stage.RESOLVED or not any(each.covers(one, now_s) for each in silences)
        }
        told = await asyncio.gather(*(self._tell_by(name, heard, now_s) for name in self._channels))
        after = dict(alerts)
        for name, keys in zip(self._channels, told, strict=True):
            for key in keys:
                after[key] = after[key].tell(name, now_s)
        return after

    async def test(self, channel: str) -> str | None:
        """Send a test message; return why it was not taken, None where it was.

        Raises KeyError for a channel that is not set up.
        """
        text = {"en": "This channel hears of alerts.", "zh": "此渠道可以收到告警。"}
        item = Item("test", "test", text[self.terms.language], time.time())
        return await self._send(channel, [item])

    async def _tell_by(self, name: str, alerts: Mapping[str, Alert], now_s: float) -> list[str]:
        """Tell one channel; return the keys of what it knows now."""
        terms, trouble = self.terms, self._troubles[name]
        news = {key: one for key, one in alerts.items() if one.wants(name, now_s, terms.repeat_s)}
        if not news or time.monotonic() < trouble.again_s:
            return []
        if await self._send(name, [self.item(one) for one in news.values()]) is None:
            self._troubles[name] = _Trouble()
            return list(news)
        pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**trouble.times)
        self._troubles[name] = _Trouble(trouble.times + 1, time.monotonic() + pause_s)
        return []

    async def _send(self, name: str, items: Sequence[Item]) -> str | None:
        news = News(tuple(items), self.terms.source, self.terms.language)
        try:
            await self._sent(name, news)
        except PushError as error:
            self._metrics.alert_pushes.labels(name, "failed").inc()
            log.warning("alert_push_failed", channel=name, reason=str(error))
            return str(error)
        self._metrics.alert_pushes.labels(name, "sent").inc()
        log.info("alert_pushed", channel=name, alerts=[one.key or one.name for one in items])
        return None

    async def _sent(self, name: str, news: News) -> None:
        try:
            async with asyncio.timeout(MOST_S):
                await self._channels[name].send(news)
        except TimeoutError as error:
            raise PushError(f"it was not taken within {MOST_S:g} s") from error

    def item(self, alert: Alert) -> Item:
        """Return an alert as people read it."""
        rule = self._rules.get(alert.rule)
        ended = alert.stage is Stage.RESOLVED
        if rule is None:  # a rule of another release
            state = "resolved" if ended else "warning"
            return Item(alert.rule, state, alert.key, alert.since_s, key=alert.key)
        return Item(
            alert.rule,
            "resolved" if ended else rule.severity.value,
            rule.says(self.terms.language, alert.value, dict(alert.labels)),
            alert.since_s,
            f"{self.terms.runbook_url}#{rule.runbook}",
            alert.key,
        )
