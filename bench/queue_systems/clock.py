"""Sends numbers one by one, each awaited before the next, and says how long that took."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Sent:
    """The time from the first call to the end of the last, and each task's name in its queue."""

    seconds: float
    cpu_s: float
    names: list[str]


def send_all(send: Callable[[int], Any], count: int, name: Callable[[Any], str]) -> Sent:
    """Send the numbers below ``count`` with a blocking client."""
    began, cpu = time.perf_counter(), time.process_time()
    handles = [send(number) for number in range(count)]
    seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu
    return Sent(seconds, cpu_s, [name(handle) for handle in handles])


async def await_all(
    send: Callable[[int], Awaitable[Any]], count: int, name: Callable[[Any], str]
) -> Sent:
    """Send the numbers below ``count`` with a client of asyncio."""
    began, cpu = time.perf_counter(), time.process_time()
    handles = [await send(number) for number in range(count)]
    seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu
    return Sent(seconds, cpu_s, [name(handle) for handle in handles])


async def read_all(read: Callable[[str], Awaitable[Any]], names: Iterable[str]) -> list[Any]:
    """Return every answer, read one after the other."""
    return [await read(name) for name in names]
