"""What a check of this machine found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """``WARN``: it will run, with the limit that is told. ``BAD``: it will not."""

    GOOD = "good"
    WARN = "warn"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's result; ``mend`` is empty where nothing is to be done."""

    check: str
    verdict: Verdict
    found: str
    mend: str = ""
