"""The sum of the bytes that requests hold: bodies, every copy of them, pictures as fetched."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from forebay.core.errors import DoorFullError
from forebay.core.neighbours import HELD_BYTES, Neighbours

_RETRY_AFTER_S = 1.0


class HeldBytes:
    """A bound over all requests together, of this process and of its ``neighbours``.

    ``most``: bytes; 0 is no bound. ``now``: those of this process.
    """

    def __init__(self, most: int = 0, neighbours: Neighbours | None = None) -> None:
        self.most = most
        self.now = 0
        self._neighbours = neighbours or Neighbours()

    @property
    def in_all(self) -> int:
        """Bytes that all requests hold, the neighbours' too."""
        return self.now + self._neighbours.others(HELD_BYTES)

    def change(self, size: int) -> None:
        """Count so many bytes more, or less."""
        self.now += size
        self._neighbours.add(HELD_BYTES, size)

    def hold(self) -> Hold:
        """Return one request's share, empty at first."""
        return Hold(self)


class Hold:
    """What one request holds. Given back as a whole, at the latest with its ``with`` block."""

    def __init__(self, held: HeldBytes) -> None:
        self._held = held
        self.bytes = 0

    def grow_to(self, size: int) -> None:
        """Hold ``size`` bytes altogether, if it is more than now.

        Raises:
            DoorFullError: all requests together would hold more than they may.
        """
        self.check(size)
        self._held.change(max(0, size - self.bytes))
        self.bytes = max(size, self.bytes)

    def grow_by_copies(self, size: int) -> None:
        """Hold ``size`` more bytes: what is made of those that came.

        A request that would take more than all may together waits until it is the only one.
        Raises DoorFullError as ``grow_to``.
        """
        wanted = self.bytes + size
        self.grow_to(min(wanted, self._held.most) if self._held.most else wanted)

    def check(self, size: int) -> None:
        """Raise DoorFullError where ``grow_to`` would; nothing is held."""
        held, more = self._held, size - self.bytes
        if more > 0 and held.most and held.in_all + more > held.most:
            raise DoorFullError(
                f"requests hold {held.in_all} bytes at present, {more} more would pass the limit "
                f"of {held.most}",
                retry_after=_RETRY_AFTER_S,
            )

    def shrink_to(self, size: int) -> None:
        """Give back what is over ``size`` bytes."""
        less = max(0, self.bytes - size)
        self.bytes -= less
        self._held.change(-less)

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give everything back."""
        self.shrink_to(0)
