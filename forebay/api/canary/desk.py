"""What the routes and commands of canaries work with."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from forebay.ops.canary.judgement import Terms, figures
from forebay.ops.canary.watch import rolled_back
from forebay.queue.canary import RedisCanary, new_entry
from forebay.queue.groups import Group, Trial


@dataclass(frozen=True, slots=True)
class CanaryDesk:
    """The canaries' share, and what ends a trial. Every method may raise QueueUnavailableError."""

    canary: RedisCanary
    terms: Terms
    judges: bool = True

    async def overview(self) -> dict[str, Any]:
        """Return how canaries stand."""
        return self._told(await self.canary.trial(self.terms.window_s))

    async def set_share(self, share: float, by: str) -> dict[str, Any]:
        """Set the share, which begins a trial; return how canaries stand then."""
        before = await self.canary.trial(0)
        await self.canary.set(new_entry(share, before.share, by, "set"))
        return await self.overview()

    async def log(self, count: int) -> dict[str, Any]:
        """Return the last changes of the share, the newest first."""
        return {"object": "list", "data": await self.canary.log(count)}

    def _told(self, trial: Trial) -> dict[str, Any]:
        totals = {group: trial.counts[group].total for group in Group}
        every = sum(totals.values())
        return {
            "object": "canary",
            "share": trial.share,
            "taken": round(totals[Group.CANARY] / every, 4) if every else None,
            "since": trial.since_s,
            "rolled_back": rolled_back(trial),
            "rollback": self.judges,
            "runs": trial.about or None,
            "workers": {group.value: trial.workers[group] for group in Group},
            "figures": figures(trial),
            "terms": asdict(self.terms),
            "last": trial.entry or None,
        }
