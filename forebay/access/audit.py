"""The record of what was done to keys and by administrators: a log line, and an entry kept."""

from __future__ import annotations

import getpass
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final, cast

import structlog
from redis.asyncio import Redis

from forebay.access.library import access_keys
from forebay.core.errors import ForebayError, QueueUnavailableError
from forebay.queue.connection import unavailable
from forebay.queue.schema import KEY_NAMES, MOST_AUDITED

log = structlog.get_logger("forebay.audit")

UNKNOWN: Final = "unknown"


@dataclass(frozen=True, slots=True)
class Deed:
    """Who did what to which, from where, and what came of it. Nothing in it is a secret.

    ``action``: such as ``key.create``. ``outcome``: ``done``, an error's code, or ``unknown``.
    """

    actor: str
    action: str
    target: str
    address: str
    outcome: str

    def fields(self) -> dict[str, str]:
        """Return them by name."""
        return {
            "actor": self.actor,
            "action": self.action,
            "target": self.target[:200],
            "from": self.address,
            "outcome": self.outcome,
        }


@dataclass(slots=True)
class OpenDeed:
    """What a deed under way is done to."""

    target: str


def deed_of_cli(action: str, target: str) -> Deed:
    """Return a deed of the person who runs a command here."""
    return Deed(f"cli:{_user()}", action, target, "local", "done")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # the number has no name here
        return str(os.getuid())


class AuditTrail:
    """Keeps deeds in the queue's server, the last ``MOST_AUDITED`` or so, and logs every one."""

    def __init__(self, redis: Redis, queue_name: str) -> None:
        self._redis = redis
        self._stream = access_keys(queue_name).prefix + KEY_NAMES["audit"]

    async def note(self, deed: Deed) -> None:
        """Record a deed. It is in the log even where the server cannot be reached."""
        log.info("audit", **deed.fields())
        try:
            async with unavailable("keeping the audit"):
                fields: dict[Any, Any] = {**deed.fields()}
                await self._redis.xadd(self._stream, fields, maxlen=MOST_AUDITED, approximate=True)
        except QueueUnavailableError as error:
            log.warning("audit.not_kept", reason=error.message)

    @asynccontextmanager
    async def recorded(self, deed: Deed) -> AsyncIterator[OpenDeed]:
        """Record the block as a deed, whatever comes of it; its target may be known only then.

        What breaks off otherwise than by an error of ours may have been done: ``unknown``.
        """
        under_way = OpenDeed(deed.target)
        try:
            yield under_way
        except ForebayError as error:
            await self.note(replace(deed, target=under_way.target, outcome=error.code))
            raise
        except BaseException:
            await self.note(replace(deed, target=under_way.target, outcome=UNKNOWN))
            raise
        await self.note(replace(deed, target=under_way.target))

    async def latest(self, count: int) -> list[dict[str, Any]]:
        """Return the last deeds, the newest first, each with its time (``at``, s since the epoch).

        Raises QueueUnavailableError.
        """
        async with unavailable("reading the audit"):
            found = await self._redis.xrevrange(self._stream, count=count)
        entries = cast("list[tuple[str, dict[str, str]]]", found or [])
        return [{"at": int(place.split("-")[0]) / 1000, **fields} for place, fields in entries]
