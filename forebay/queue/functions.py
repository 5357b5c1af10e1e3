"""The Lua library as a server has it: its text, its version, one call."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from forebay.core.lifecycle import HELD, TRANSITIONS
from forebay.queue.asking import ask
from forebay.queue.limits import QueueLimits
from forebay.queue.schema import (
    KEY_NAMES,
    TRIAL_SLOT_S,
    TRIAL_TTL_S,
    WEBHOOK_LOG_MOST,
    WEBHOOK_TTL_S,
    WEBHOOKS_MOST,
    WEBHOOKS_MOST_PER_HOST,
    Keys,
)

PARTS: Final = (
    "base.lua",
    "registering.lua",
    "alerts.lua",
    "fleet.lua",
    "live.lua",
    "measures.lua",
    "tasks.lua",
    "rates.lua",
    "canary.lua",
    "life.lua",
    "outlook.lua",
    "blobs.lua",
    "results.lua",
    "hooks.lua",
    "told.lua",
    "access.lua",
    "door.lua",
    "turns.lua",
    "worker.lua",
    "operator.lua",
    "batches.lua",
    "trial.lua",
    "register.lua",
)
"""Each part sees the local names of those before it."""

CLOSED: Final = frozenset(
    {
        "access.lua",
        "alerts.lua",
        "batches.lua",
        "fleet.lua",
        "live.lua",
        "measures.lua",
        "operator.lua",
    }
    | {"tasks.lua", "trial.lua"}
)
"""Parts whose local names no other one sees: Lua has room for 200 at once, with those before."""


@cache
def library_source() -> tuple[str, str]:
    """Return the library's version (a digest of its text) and its whole text."""
    folder = files("forebay.queue") / "lua"
    body = "\n".join(_part(part, (folder / part).read_text(encoding="utf-8")) for part in PARTS)
    body = f"{_tables()}\n{body}"
    version = hashlib.sha256(body.encode()).hexdigest()[:12]
    head = f"#!lua name=forebay_{version}\nlocal VERSION = '{version}'\n"
    return version, head + body


def _part(name: str, text: str) -> str:
    return f"do\n{text}end" if name in CLOSED else text


def _tables() -> str:
    """Return what the library shares with Python: names of keys, the life of a task, bounds."""
    names = ", ".join(f"{name} = '{shape}'" for name, shape in KEY_NAMES.items())
    follows = ", ".join(f"{state} = {_set(after)}" for state, after in TRANSITIONS.items())
    hooks = (
        f"ttl_ms = {WEBHOOK_TTL_S * 1000}, most = {WEBHOOKS_MOST}, "
        f"most_per_host = {WEBHOOKS_MOST_PER_HOST}, log_most = {WEBHOOK_LOG_MOST}"
    )
    return (
        f"local KEY = {{ {names} }}\nlocal FOLLOWS = {{ {follows} }}\nlocal HELD = {_set(HELD)}\n"
        f"local HOOKS = {{ {hooks} }}\n"
        f"local TRIAL = {{ slot_ms = {TRIAL_SLOT_S * 1000}, kept_ms = {TRIAL_TTL_S * 1000} }}"
    )


def _set(names: Iterable[str]) -> str:
    return "{ " + ", ".join(f"{name} = true" for name in sorted(names)) + " }"


class Functions:
    """Calls functions of the library for one queue. Redis errors come through as they are.

    Every function may be sent twice with the same arguments and then acts once; that is what
    lets the connection retry.
    """

    def __init__(self, redis: Redis, keys: Keys, limits: QueueLimits) -> None:
        self._redis = redis
        self._keys = keys
        self._limits = limits
        self._numbers = " ".join(map(str, limits.script_args()))
        self._version, self._source = library_source()

    async def load(self) -> None:
        """Load the library where it is missing; that takes memory, and a full server has none."""
        await self._call("workers")

    async def ping(self) -> None:
        """Ask the server for nothing."""
        await self._redis.ping()

    async def _call(self, name: str, *args: str | float | bytes) -> Any:
        function = f"forebay_{self._version}_{name}"
        try:
            return await self._fcall(function, args)
        except ResponseError as error:
            if "Function not found" not in str(error):
                raise
        # A server that is new, or was flushed or replaced while we ran. Others may load it now too.
        await self._redis.function_load(self._source, replace=True)
        return await self._fcall(function, args)

    async def _fcall(self, function: str, args: Sequence[str | float | bytes]) -> Any:
        return await ask(self._redis, "FCALL", function, 1, self._keys.meta, self._numbers, *args)


def flat(rows: Sequence[Sequence[str | int]]) -> list[str | int]:
    """Return the values of all rows, one after the other: the form of a batch in a call."""
    return [value for row in rows for value in row]


def by_name(pairs: Sequence[str]) -> dict[str, str]:
    """Read a hash as the server sends it: names and values in turn."""
    return dict(zip(pairs[::2], pairs[1::2], strict=True))
