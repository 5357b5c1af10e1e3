"""The client: one object for one server, used as a context manager."""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Final, Literal, Self, Unpack
from urllib.parse import quote

import httpx

from forebay.client.asking import Options, Picture, request_parts
from forebay.client.errors import (
    ClientError,
    UnexpectedReplyError,
    UnreachableError,
    refusal_of,
)
from forebay.client.events import Ended, Event
from forebay.client.following import Following
from forebay.client.patience import Patience
from forebay.client.task import Task, task_of

_VISIBLE: Final = re.compile(r"[\x21-\x7e]+")
_LONGEST_KEY: Final = 255
_LEAVING_S: Final = 2.0


class Client:
    """A client of one server's tasks API. Safe for many tasks of one event loop.

    Whatever a call meets that passes (the server restarts, the queue is full, the network is cut)
    it meets again for up to ``patience_s`` seconds, and not before the server's ``Retry-After``.

    Args:
        url: the server's address, with what a proxy has put before its paths.
        api_key: a key or token, where the server asks for one.
        patience_s: how long one call goes on trying; 0: one try.
        timeout_s: for a connection, and for a reply's next byte.
        silence_s: the same for a stream of events, which says that it lives every 15 s or so.
        http: a client of one's own, for proxies or certificates; it is not closed here.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8080",
        *,
        api_key: str | None = None,
        patience_s: float = 60.0,
        timeout_s: float = 30.0,
        silence_s: float = 60.0,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        """Raise ValueError for an address or a key that is none."""
        if httpx.URL(url).scheme not in ("http", "https"):
            raise ValueError("url must begin with http:// or https://")
        if api_key is not None and not _VISIBLE.fullmatch(api_key):
            raise ValueError("api_key must be visible ASCII characters")
        self._root = url.rstrip("/")
        self._headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self._patience_s = patience_s
        self._timeout = httpx.Timeout(timeout_s)
        self._silence = httpx.Timeout(timeout_s, read=silence_s)
        self._is_own = http is None
        self._http = http or httpx.AsyncClient(trust_env=False)

    async def __aenter__(self) -> Self:
        """Return the client itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connections."""
        await self.close()

    async def close(self) -> None:
        """Close the connections. Tasks go on."""
        if self._is_own:
            await self._http.aclose()

    async def create(
        self,
        prompt: str | None = None,
        *,
        image: Picture | Sequence[Picture] | None = None,
        messages: Sequence[Mapping[str, Any]] | None = None,
        wait_s: float | None = None,
        idempotency_key: str | None = None,
        cache: Literal["no-cache", "no-store"] | None = None,
        **options: Unpack[Options],
    ) -> Task:
        """Put a task into the queue; it is there exactly once, however often it had to be sent.

        Args:
            prompt: the question.
            image: what it is about: bytes, a ``Path``, a URL as text, or several of them.
            messages: a conversation instead, as chat has it.
            wait_s: return with the answer if it is there by then.
            idempotency_key: of one's own, to send the same again from another process; one that
                nobody else has is made otherwise.
            cache: ``no-cache`` has it answered anew, ``no-store`` keeps the answer from others.
            options: everything else.

        Raises:
            InvalidError, NotAllowedError, NotFoundError, ConflictError: it was refused.
            BusyError, UnreachableError: there was no getting through.
            ValueError, OSError: of the arguments; nothing was sent.
        """
        headers = {"Idempotency-Key": _checked(idempotency_key or str(uuid.uuid4()))}
        timeout = self._timeout
        if wait_s is not None:
            headers["Prefer"] = f"wait={math.ceil(wait_s)}"
            timeout = httpx.Timeout(self._timeout.connect, read=_read_s(timeout) + wait_s)
        if cache is not None:
            headers["Cache-Control"] = cache
        parts = await request_parts(prompt, image, messages, options)
        reply = await self._call("POST", "", headers=headers, timeout=timeout, **parts)
        return task_of(_json(reply))

    async def get(self, task: Task | str) -> Task:
        """Return the task as it is now. Raises NotFoundError where it is not known (any more)."""
        return task_of(_json(await self._call("GET", _path(task))))

    async def result(self, task: Task | str) -> Task:
        """Return the task with its answer, however long that takes; bound it by ``timeout``.

        Raises:
            NoAnswerError: it ended without one.
            ClientError: as ``events``.
        """
        async with aclosing(self.events(task)) as events:
            async for event in events:
                if isinstance(event, Ended):
                    return event.task.answered()
        raise AssertionError("events end with the task's end")

    async def cancel(self, task: Task | str) -> Task:
        """End a task; its worker may need a moment to drop it.

        Raises:
            ConflictError: it had ended before.
        """
        return task_of(_json(await self._call("DELETE", _path(task))))

    async def list(
        self,
        state: Literal["queued", "delayed", "suspect", "running", "dead"] = "queued",
        *,
        page: int = 100,
    ) -> AsyncGenerator[Task]:
        """Yield the tasks of a state, page by page; ``page``: tasks of one request, 1 to 100."""
        query: dict[str, Any] = {"state": state, "limit": page}
        while True:
            told = _json(await self._call("GET", "", params=query))
            try:
                found, cursor = [task_of(one) for one in told["data"]], told["next_cursor"]
            except (KeyError, TypeError) as error:
                raise UnexpectedReplyError("the reply is no list of tasks") from error
            for task in found:
                yield task
            if not cursor:
                return
            query["cursor"] = cursor

    def events(self, task: Task | str, *, after: str | None = None) -> AsyncGenerator[Event]:
        """Yield what becomes of a task, from its place in the queue to its ``Ended``.

        Where the connection breaks, or the server restarts, it goes on after the last text that
        came: none is lost, none comes twice. ``after``: the ``place`` of an event that was heard
        before. Leaving it does not cancel the task.

        Raises:
            NotFoundError: the task is not known (any more).
            BusyError, UnreachableError: nothing was heard for ``patience_s``.
        """
        return Following(
            self._http,
            self._url(_path(task) + "/events"),
            self._headers,
            lambda: self.get(task),
            after=after,
            patience_s=self._patience_s,
            timeout=self._silence,
        ).events()

    async def ask(
        self,
        prompt: str,
        *,
        image: Picture | Sequence[Picture] | None = None,
        cache: Literal["no-cache", "no-store"] | None = None,
        **options: Unpack[Options],
    ) -> str:
        """Return the answer's text. Where nobody waits for it any more the task is cancelled.

        Raises:
            NoAnswerError: there is none, and why.
            ClientError: as ``create`` and ``events``.
        """
        task = await self.create(prompt, image=image, cache=cache, **options)
        try:
            return (await self.result(task)).text
        except asyncio.CancelledError:
            with contextlib.suppress(ClientError, httpx.TransportError, TimeoutError):
                async with asyncio.timeout(_LEAVING_S):
                    await self.cancel(task)
            raise

    async def _call(self, method: str, path: str, **request: Any) -> httpx.Response:
        """Send until there is a reply that is none of those that pass."""
        patience = Patience(self._patience_s)
        request = {"timeout": self._timeout, **request}
        request["headers"] = {**self._headers, **request.get("headers", {})}
        while True:
            try:
                reply = await self._http.request(method, self._url(path), **request)
            except httpx.TransportError as error:
                fault: ClientError = UnreachableError(
                    f"{self._root}: {type(error).__name__}: {error}"
                )
                fault.__cause__ = error
            except httpx.RequestError as error:
                raise UnexpectedReplyError(f"the reply cannot be read: {error}") from error
            else:
                if reply.is_success:
                    return reply
                fault = refusal_of(reply)
                if not fault.retryable:
                    raise fault
            await patience.wait(fault)

    def _url(self, path: str) -> str:
        return f"{self._root}/v1/tasks{path}"


def _path(task: Task | str) -> str:
    return "/" + quote(task.id if isinstance(task, Task) else task, safe="")


def _read_s(timeout: httpx.Timeout) -> float:
    return timeout.read or 0.0


def _checked(key: str) -> str:
    if len(key) > _LONGEST_KEY or not _VISIBLE.fullmatch(key):
        raise ValueError("idempotency_key must be 1 to 255 visible ASCII characters")
    return key


def _json(reply: httpx.Response) -> Any:
    try:
        return reply.json()
    except (ValueError, RecursionError) as error:
        raise UnexpectedReplyError("the reply is no JSON") from error
