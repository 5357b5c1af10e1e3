"""``forebay top``: looks, shows, and does what the keys say, until it is told to end."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Coroutine
from typing import Any, Final

from rich.console import Console
from rich.live import Live

from forebay.top.feed import AwayError, Feed
from forebay.top.state import Deed, TopState
from forebay.top.terminal import pressed_keys
from forebay.top.view import frame
from forebay.top.words import WORDS, Language

HISTORY_S: Final = 120
ALERTS_EVERY_S: Final = 5.0
RETRY_S: Final = 2.0


class Top:
    """One screen on one server."""

    def __init__(self, feed: Feed, url: str, console: Console, language: Language) -> None:
        self._feed = feed
        self._url = url
        self._console = console
        self._language: Language = language
        self._words = WORDS[language]
        self._state = TopState()
        self._changed = asyncio.Event()
        self._over = asyncio.Event()

    async def look(self) -> TopState:
        """Look once at everything. Raises TopError, AwayError."""
        state = self._state
        state.see_series(await self._feed.series(HISTORY_S))
        state.see_point(await self._feed.now())
        state.see_workers((await self._feed.workers())["data"])
        state.alerts = (await self._feed.alerts())["data"]
        return state

    @property
    def color(self) -> str:
        """The light's color as it was seen last; red before that."""
        return "red" if self._state.now is None else str(self._state.now["light"]["color"])

    def print_frame(self) -> None:
        """Print what is known, once."""
        self._console.print(frame(self._state, self._console, self._language, self._url))

    async def run(self) -> None:
        """Show until ``q``. Raises TopError."""
        async with pressed_keys() as keys:
            with Live(
                console=self._console, screen=True, auto_refresh=False, transient=True
            ) as live:
                await self._until_over(
                    self._follow(), self._follow_alerts(), self._obey(keys), self._draw(live)
                )

    async def _until_over(self, *works: Coroutine[Any, Any, None]) -> None:
        """Do everything at once, until a key ends it or one of them fails."""
        tasks = [asyncio.create_task(one) for one in works]
        over = asyncio.create_task(self._over.wait())
        try:
            done, _ = await asyncio.wait([over, *tasks], return_when=asyncio.FIRST_COMPLETED)
            for one in done - {over}:
                one.result()
        finally:
            for one in (over, *tasks):
                one.cancel()
            await asyncio.gather(over, *tasks, return_exceptions=True)

    async def _draw(self, live: Live) -> None:
        while True:
            shown = frame(self._state, self._console, self._language, self._url)
            live.update(shown, refresh=True)
            self._changed.clear()
            with contextlib.suppress(TimeoutError):  # the terminal may have changed its size
                await asyncio.wait_for(self._changed.wait(), 1.0)

    async def _follow(self) -> None:
        """Follow the server's stream, again and again."""
        first = True
        while True:
            try:
                if first:
                    await self.look()
                    first = False
                # it ends now and then; a server that is away does not answer the next one
                async for name, told in self._feed.stream():
                    self._see(name, told)
            except AwayError as error:
                self._lose(str(error))
            await asyncio.sleep(RETRY_S)

    def _see(self, name: str, told: dict[str, Any]) -> None:
        if name == "point":
            self._state.see_point(told)
        elif name == "workers":
            self._state.see_workers(told["data"])
        self._changed.set()

    def _lose(self, why: str) -> None:
        self._state.away = why
        self._changed.set()

    async def _follow_alerts(self) -> None:
        while True:
            with contextlib.suppress(AwayError):  # the stream says so already
                self._state.alerts = (await self._feed.alerts())["data"]
                self._changed.set()
            await asyncio.sleep(ALERTS_EVERY_S)

    async def _obey(self, keys: asyncio.Queue[str]) -> None:
        while True:
            deed = self._state.press(await keys.get())
            self._changed.set()
            if self._state.over:
                self._over.set()
            if deed is not None:
                await self._do(deed)

    async def _do(self, deed: Deed) -> None:
        why = await self._feed.act(deed.worker_id, deed.action)
        said = self._words[deed.action].format(subject=deed.worker_id)
        self._state.notice = said if why is None else self._words["refused"].format(why=why)
        self._changed.set()


async def run_top(
    url: str, key: str | None, console: Console, language: Language, *, once: bool, as_json: bool
) -> str:
    """Show one server; return the color of its light as it was seen last.

    Raises:
        TopError: the key is not good for it, or this is no server of Forebay.
        AwayError: it does not answer, where one look was asked for.
    """
    async with Feed(url, key) as feed:
        top = Top(feed, url, console, language)
        if not (once or as_json):
            await top.run()
        elif as_json:
            state = await top.look()
            told = {"now": state.now, "workers": state.workers, "alerts": state.alerts}
            console.file.write(json.dumps(told, ensure_ascii=False) + "\n")
        else:
            await top.look()
            top.print_frame()
        return top.color
