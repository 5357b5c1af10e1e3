"""Where ``forebay top`` hears of a server: its administration's endpoints, by stream or look."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any, Final, Self
from urllib.parse import quote

import httpx

ANSWER_S: Final = 10.0
SILENT_S: Final = 15.0
"""A stream without a point for so long is taken for broken."""

MOST_OF_AN_EVENT: Final = 4 * 2**20


class TopError(Exception):
    """There is nothing to show, and trying again would not help."""


class AwayError(Exception):
    """The server does not answer now; it may in a moment."""


class Feed:
    """One server's administration. An async context manager."""

    def __init__(self, url: str, key: str | None) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        timeout = httpx.Timeout(ANSWER_S, read=SILENT_S)
        self._http = httpx.AsyncClient(
            base_url=url, headers=headers, timeout=timeout, trust_env=False
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._http.aclose()

    async def now(self) -> dict[str, Any]:
        """Return the present point. Like all of these: raises TopError, AwayError."""
        return await self._get("/v1/admin/now")

    async def series(self, seconds: int) -> dict[str, Any]:
        """Return the last points."""
        return await self._get("/v1/admin/series", seconds=seconds)

    async def workers(self) -> dict[str, Any]:
        """Return the workers."""
        return await self._get("/v1/admin/workers")

    async def alerts(self) -> dict[str, Any]:
        """Return the alerts; none where the server judges none."""
        try:
            return await self._get("/v1/admin/alerts")
        except TopError:
            return {"data": []}

    async def stream(self) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """Return events with what they say, until the server ends them. Raises AwayError."""
        try:
            async with self._http.stream("GET", "/v1/admin/stream") as reply:
                if not reply.is_success:
                    await reply.aread()
                _check(reply)
                async for event in _events(reply):
                    yield event
        except (httpx.HTTPError, ValueError) as error:
            raise AwayError(_why(error)) from error

    async def act(self, worker_id: str, action: str) -> str | None:
        """Drain or undrain a worker; return why that was refused, None where it was not."""
        try:
            path = f"/v1/admin/workers/{quote(worker_id, safe='')}/{action}"
            reply = await self._http.post(path)
            return None if reply.is_success else _told(reply)
        except httpx.HTTPError as error:
            return _why(error)

    async def _get(self, path: str, **query: int) -> dict[str, Any]:
        try:
            reply = await self._http.get(path, params=query)
            _check(reply)
            found = reply.json()
        except (httpx.HTTPError, ValueError) as error:
            raise AwayError(_why(error)) from error
        if not isinstance(found, dict):
            raise AwayError("it does not answer as Forebay does")
        return found


async def _events(reply: httpx.Response) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    name, data = "", ""
    async for line in reply.aiter_lines():
        if line.startswith("event:"):
            name = line.removeprefix("event:").strip()
        elif line.startswith("data:"):
            data += line.removeprefix("data:").strip()
            if len(data) > MOST_OF_AN_EVENT:
                raise ValueError("an event is too long")
        elif not line:
            if name and data:
                yield name, json.loads(data)
            name, data = "", ""


def _check(reply: httpx.Response) -> None:
    if reply.status_code in (401, 403):
        raise TopError(
            f"{_told(reply)}. A key with the scope admin is needed: `forebay keys create top "
            "--scope admin`, and set FOREBAY_API_KEY or api_key_file"
        )
    if reply.status_code == httpx.codes.NOT_FOUND:
        raise TopError(f"{reply.url.path}: this server is none of Forebay, or an older one")
    reply.raise_for_status()


def _told(reply: httpx.Response) -> str:
    try:
        return str(reply.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"status {reply.status_code}"


def _why(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".removesuffix(": ")
