"""Long bodies are parsed beside the event loop, so that nobody else waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

_SHORT_BYTES: Final = 2**20
"""Parsed in about two milliseconds, for which a thread is not worth its while."""

T = TypeVar("T")


async def parsed(parse: Callable[[bytes], T], body: bytes) -> T:
    """Return ``parse(body)``, whose errors are raised here.

    On a thread the interpreter's lock is still one, but it changes hands between the steps of a
    parser: the longest of them, of 20 MiB, takes a third of what all of them take together.
    """
    if len(body) <= _SHORT_BYTES:
        return parse(body)
    return await asyncio.to_thread(parse, body)
