"""Consoles that are open, as the page is: a process of its own.

    CONSOLE_KEY=... python -m bench.console_readers URL COUNT

Each reads the series once, follows the stream, and asks for the lists again and again, until
standard input ends. Each line of it begins the count anew; at the end what was read since, and how
often was asked, is printed as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Final

import httpx

POLLS: Final = (("/v1/admin/tasks?limit=50", 5.0), ("/v1/admin/alerts", 5.0))
"""What the page asks for beside its stream, and how often, in seconds."""


class Reader:
    """One console."""

    def __init__(self, door: httpx.AsyncClient) -> None:
        self.points = 0
        self.polls = 0
        self._door = door

    async def run(self) -> None:
        """Follow and ask until cancelled."""
        (await self._door.get("/v1/admin/series?seconds=900")).raise_for_status()
        await asyncio.gather(self._follow(), *(self._poll(*one) for one in POLLS))

    async def _follow(self) -> None:
        async with self._door.stream("GET", "/v1/admin/stream", timeout=None) as stream:
            stream.raise_for_status()
            async for line in stream.aiter_lines():
                self.points += line == "event: point"
        raise RuntimeError("the stream has ended")

    async def _poll(self, path: str, every_s: float) -> None:
        while True:
            (await self._door.get(path)).raise_for_status()
            self.polls += 1
            await asyncio.sleep(every_s)


def _count_anew(readers: list[Reader]) -> None:
    for _ in sys.stdin:
        for one in readers:
            one.points = one.polls = 0


async def _main(url: str, count: int) -> None:
    headers = {"Authorization": f"Bearer {os.environ['CONSOLE_KEY']}"}
    async with httpx.AsyncClient(
        base_url=url, headers=headers, timeout=30, trust_env=False, limits=httpx.Limits()
    ) as door:
        readers = [Reader(door) for _ in range(count)]
        reading = [asyncio.create_task(one.run()) for one in readers]
        ended = asyncio.create_task(asyncio.to_thread(_count_anew, readers))
        await asyncio.wait([ended, *reading], return_when=asyncio.FIRST_COMPLETED)
        for one in reading:
            if one.done():
                one.result()
            one.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
    points, polls = (sum(getattr(one, name) for one in readers) for name in ("points", "polls"))
    print(json.dumps({"points": points, "polls": polls}))


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], int(sys.argv[2])))
