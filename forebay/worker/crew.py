"""The workers of one supervisor: as many as are wanted, each kept alive."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable

import structlog

from forebay.worker.child import Child, ChildFailedError

log = structlog.get_logger("forebay.supervisor")


class Crew:
    """Starts workers by their number, ends those too many, and watches over every one.

    ``make`` builds the child with a number; ``watch`` runs beside it and ends it when it is silent.
    A worker of the first crew that never comes to life fails ``watching``; one that was added
    later is given up, and the others go on.
    """

    def __init__(
        self, make: Callable[[int], Child], watch: Callable[[Child], Awaitable[None]]
    ) -> None:
        self.wanted = 0
        self._make = make
        self._watch = watch
        self._members: dict[int, Child] = {}
        self._keepers: dict[int, asyncio.Task[None]] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._changing = asyncio.Lock()

    @property
    def members(self) -> list[Child]:
        """The workers that are to live, by their number."""
        return [self._members[number] for number in sorted(self._members)]

    async def watching(self) -> None:
        """Return never. Raises ChildFailedError for one of the first crew."""
        await asyncio.shield(self._failed)

    async def muster(self, count: int) -> None:
        """Start the first crew."""
        self.wanted = count
        for number in range(count):
            await self._add(number, essential=True)

    async def scale(self, count: int, leave: Callable[[Child], Awaitable[None]]) -> None:
        """Have ``count`` workers: start those that lack, ``leave`` is how one too many ends.

        Those with the highest numbers leave, all at once, and nobody waits for them here.
        """
        async with self._changing:
            self.wanted = count
            for number in sorted(self._members, reverse=True):
                if len(self._members) <= count:
                    break
                self._dismiss(number, leave)
            while len(self._members) < count:
                await self._add(self._free_number(), essential=False)

    async def close(self, leave: Callable[[Child], Awaitable[None]]) -> None:
        """End every worker, those that leave already too."""
        await asyncio.gather(*(leave(one) for one in self.members), *self._leaving)
        for keeper in self._keepers.values():
            keeper.cancel()
        await asyncio.gather(*self._keepers.values(), return_exceptions=True)

    async def _add(self, number: int, *, essential: bool) -> None:
        child = self._make(number)
        await child.start()
        self._members[number] = child
        keeper = asyncio.create_task(self._keep(number, child, essential=essential))
        self._keepers[number] = keeper

    def _free_number(self) -> int:
        """Return the least number, and so name, that no worker has, nor one that leaves."""
        taken = {*self._members, *(int(one.get_name()) for one in self._leaving)}
        return next(number for number in itertools.count() if number not in taken)

    async def _keep(self, number: int, child: Child, *, essential: bool) -> None:
        watching = asyncio.ensure_future(self._watch(child))
        try:
            await child.keep_alive()
        except ChildFailedError as error:
            if essential and not self._failed.done():
                self._failed.set_exception(error)
                return
            log.error("given_up", worker=child.spec.name, reason=str(error))
            self._members.pop(number, None)
            self.wanted = len(self._members)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    def _dismiss(self, number: int, leave: Callable[[Child], Awaitable[None]]) -> None:
        child, keeper = self._members.pop(number), self._keepers.pop(number)

        async def go() -> None:
            await leave(child)
            await keeper

        leaving = asyncio.create_task(go(), name=str(number))
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)
