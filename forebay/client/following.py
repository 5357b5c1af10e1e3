"""A task's events from one place on, over as many connections as it takes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing
from typing import Final

import httpx

from forebay.client.errors import (
    ClientError,
    UnexpectedReplyError,
    UnreachableError,
    refusal_of,
)
from forebay.client.events import INTERRUPTED, Delta, Ended, Event, event_of
from forebay.client.patience import Patience
from forebay.client.sse import EventReader, SentEvent
from forebay.client.task import Task

_LONGEST_RETRY_S: Final = 30.0


class Following:
    """One reader of one task.

    ``look``: asks for the task as it is, for when nothing of it follows. ``timeout``: its ``read``
    is the longest silence; the server's comments break it.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        url: str,
        headers: Mapping[str, str],
        look: Callable[[], Awaitable[Task]],
        *,
        after: str | None,
        patience_s: float,
        timeout: httpx.Timeout,
    ) -> None:
        self._http = http
        self._url = url
        self._headers = {
            **headers,
            "Accept": "text/event-stream",
            "Accept-Encoding": "identity",  # events are read as they come
            "Cache-Control": "no-store",
        }
        self._look = look
        self._place = after
        self._patience = Patience(patience_s)
        self._timeout = timeout
        self._retry_s = 0.0
        self._held: list[Delta] = []

    async def events(self) -> AsyncGenerator[Event]:
        """Yield them, to the task's end.

        Raises:
            RefusedError: the task is not known, or may not be read.
            UnexpectedReplyError: the reply is none of ours.
            BusyError, UnreachableError: no event came for as long as there was patience.
        """
        while True:
            async with aclosing(self._connection()) as events:
                async for event in events:
                    if isinstance(event, ClientError):
                        fault = event
                        break
                    yield event
                    if isinstance(event, Ended):
                        return
            await self._patience.wait(fault, self._retry_s)

    async def _connection(self) -> AsyncGenerator[Event | ClientError]:
        """Yield what one connection tells, and at last, where it ended early, why it did."""
        self._held.clear()  # it comes again: its place has not been reached
        try:
            place = {} if self._place is None else {"Last-Event-ID": self._place}
            async with (
                self._http.stream(
                    "GET", self._url, headers={**self._headers, **place}, timeout=self._timeout
                ) as reply,
                aclosing(self._of_reply(reply)) as events,
            ):
                async for event in events:
                    yield event
        except httpx.TransportError as error:
            yield UnreachableError(f"the stream broke off: {type(error).__name__}: {error}")
            return
        except httpx.RequestError as error:
            raise UnexpectedReplyError(f"the reply cannot be read: {error}") from error
        yield UnreachableError("the stream ended before the task did")

    async def _of_reply(self, reply: httpx.Response) -> AsyncGenerator[Event | ClientError]:
        if reply.status_code == httpx.codes.NO_CONTENT:
            yield Ended(await self._ended())
            return
        if reply.status_code != httpx.codes.OK:
            await reply.aread()
            fault = refusal_of(reply)
            if not fault.retryable:
                raise fault
            yield fault
            return
        reader = EventReader()
        async for chunk in reply.aiter_raw():
            for sent in reader.feed(chunk):
                if sent.name == INTERRUPTED:
                    yield UnreachableError("the server broke the reading off")
                    return
                self._patience.renew()
                for event in self._told(sent):
                    yield event
            self._retry_s = min(_LONGEST_RETRY_S, reader.retry_s or 0.0)

    async def _ended(self) -> Task:
        """Return the task of which nothing follows."""
        task = await self._look()
        if not task.ended:
            raise UnexpectedReplyError("nothing follows, and yet the task has not ended")
        return task

    def _told(self, sent: SentEvent) -> Iterator[Event]:
        """Yield an event, and those before it that are complete only with its place.

        Pieces that came at once have one place between them: who is cut off among them hears all
        of them again.
        """
        event = event_of(sent)
        if isinstance(event, Delta) and event.place is None:
            self._held.append(event)
            return
        yield from self._held
        self._held.clear()
        if sent.place is not None:
            self._place = sent.place
        if event is not None:
            yield event
