"""What the console's routes work with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from forebay.api.console.feed import Feed
from forebay.core.errors import NoSupervisorError, WorkerNotFoundError
from forebay.ops.live.fleet_view import stacks_of, workers_of
from forebay.ops.live.pulse import LivePulse
from forebay.queue.fleet import DRAIN, RESTART, RUN, Fleet, Member


@dataclass(frozen=True, slots=True)
class ConsoleDesk:
    """``stall_s``: for how long an engine may stand still with work before it is called hung."""

    pulse: LivePulse
    feed: Feed
    fleet: Fleet
    stall_s: float

    async def overview(self) -> dict[str, Any]:
        """Return every worker and supervisor. Raises QueueUnavailableError."""
        return fleet_object(await self.fleet.members(), self.stall_s)

    async def drain(self, worker: str) -> dict[str, Any]:
        """Have a worker take nothing more. Raises WorkerNotFoundError."""
        return await self._order(worker, DRAIN)

    async def undrain(self, worker: str) -> dict[str, Any]:
        """Have it take tasks again. Raises WorkerNotFoundError."""
        return await self._order(worker, "")

    async def restart(self, worker: str) -> dict[str, Any]:
        """Have it drain and begin anew. Raises WorkerNotFoundError.

        One that is still being started is told to in its first report.
        """
        return await self._order(worker, f"{RESTART} {await self._life(worker)}")

    async def scale(self, count: int, stack: str | None) -> list[str]:
        """Have every supervisor, or that one, run so many workers; return which.

        Raises NoSupervisorError.
        """
        running = [one["id"] for one in stacks_of(await self.fleet.members())]
        meant = [one for one in running if stack in (None, one)]
        if not meant:
            raise NoSupervisorError(
                f"no supervisor has the id {stack[:64]}" if stack and running else
                "no supervisor of workers has been heard of"
            )  # fmt: skip
        await self.fleet.order(f"{RUN} {count}", *meant)
        return meant

    async def _order(self, worker: str, wanted: str) -> dict[str, Any]:
        await self._worker(worker)
        await self.fleet.order(wanted, worker)
        return await self._worker(worker)

    async def _worker(self, worker: str) -> dict[str, Any]:
        found = workers_of(await self.fleet.members(), self.stall_s)
        for one in found:
            if one["id"] == worker:
                return one
        raise WorkerNotFoundError(f"there is no worker {worker[:64]}")

    async def _life(self, worker: str) -> str:
        members: list[Member] = await self.fleet.members()
        lives = (str(one.says["life"]) for one in members if one.name == worker)
        if (life := next(lives, None)) is None:
            raise WorkerNotFoundError(f"the worker {worker[:64]} has not reported yet")
        return life


def fleet_object(members: list[Member], stall_s: float) -> dict[str, Any]:
    """Return the fleet's JSON object."""
    return {
        "object": "list",
        "data": workers_of(members, stall_s),
        "stacks": stacks_of(members),
    }
