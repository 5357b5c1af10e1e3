"""A time of each day, in a time zone: when what disturbs may be done."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta, tzinfo
from typing import Final, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_FORM: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")


@dataclass(frozen=True, slots=True)
class DailyWindow:
    """From ``begin`` to ``end`` of every day in ``zone``; past midnight where ``end`` is earlier.

    Where the clock is put forward over an end of it, the window of that day is shorter, or is left
    out; where the clock is put back, the first of the two equal times counts.
    """

    begin: time
    end: time
    zone: tzinfo = UTC

    @classmethod
    def parse(cls, text: str, zone: str = "UTC") -> Self:
        """Read ``03:00-05:00`` and the name of a time zone. Raises ValueError."""
        found = _FORM.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r} is not of the form HH:MM-HH:MM, such as 03:00-05:00")
        hour, minute, end_hour, end_minute = map(int, found.groups())
        begin, end = time(hour, minute), time(end_hour, end_minute)
        if begin == end:
            raise ValueError(f"{text!r} begins when it ends")
        return cls(begin, end, zone_named(zone))

    def around(self, now: datetime) -> tuple[datetime, datetime] | None:
        """Return begin and end (UTC) of the window that ``now`` is in, None outside of each."""
        today = now.astimezone(self.zone).date()
        for day in (today, today - timedelta(days=1)):
            last = day + timedelta(days=self.end <= self.begin)
            begin = datetime.combine(day, self.begin, self.zone).astimezone(UTC)
            end = datetime.combine(last, self.end, self.zone).astimezone(UTC)
            if begin <= now < end:
                return begin, end
        return None

    @staticmethod
    def turn(window: tuple[datetime, datetime], whose: str) -> datetime:
        """Return when ``whose`` turn comes within a window that ``around`` has returned.

        Always the same for one window, and in its first half, so that what cannot be done at once
        has the other half to be done in.
        """
        begin, end = window
        digest = hashlib.sha256(f"{whose} {begin.isoformat()}".encode()).digest()
        return begin + (end - begin) / 2 * (int.from_bytes(digest[:4], "big") / 2**32)


def zone_named(name: str) -> tzinfo:
    """Return a time zone by its IANA name. Raises ValueError."""
    if name == "UTC":  # known without the system's table
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(
            f"{name!r} is no time zone that this machine knows; write one as Asia/Shanghai, "
            "or install tzdata"
        ) from error
