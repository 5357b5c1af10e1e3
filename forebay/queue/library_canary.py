"""What is called of the library about canaries: each function with its types."""

from __future__ import annotations

from typing import NamedTuple

from forebay.queue.functions import Functions, by_name


class TrialRow(NamedTuple):
    """What ``canary`` answers. ``counts``: by name, ``s:`` or ``c:`` and what was counted."""

    share: float
    number: int
    since_ms: int
    entry: str
    about: str
    stable: int
    canaries: int
    counts: dict[str, str]


class CanaryLibrary(Functions):
    """The functions of canaries, for one queue."""

    async def begin(self, nonce: str, about: str) -> None:
        """Say that a canary has started, and what it runs."""
        await self._call("canary_begin", nonce, about)

    async def set(
        self, share: float, trial: int | None, entry: str, most_logged: int, log_ms: int
    ) -> bool:
        """Set the share, in this trial only unless it is None; False: another one has begun."""
        expected = "" if trial is None else trial
        return bool(
            await self._call("canary_set", f"{share:.6g}", expected, entry, most_logged, log_ms)
        )

    async def trial(self, window_ms: int) -> TrialRow:
        """Return how canaries stand, counting so far back."""
        share, *known, counts = await self._call("canary", window_ms)
        number, since_ms, entry, about, stable, canaries = known
        told = (int(number), int(since_ms), entry, about, int(stable), int(canaries))
        return TrialRow(float(share), *told, by_name([str(one) for one in counts]))
