"""What a question about the model's health came to."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

SILENT: Final = "model_silent"
"""Why a model is not healthy that gave no token in time."""


@dataclass(frozen=True, slots=True)
class Probed:
    """What came of one question. ``reason``: an error's code or ``SILENT``; None: it answered.

    ``ended_s``: by the monotonic clock.
    """

    model: str
    reason: str | None
    took_s: float
    ended_s: float

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form; ``age_s`` says how long ago this was."""
        body: dict[str, Any] = {
            "status": "ok" if self.reason is None else "unavailable",
            "model": self.model,
            "took_ms": round(self.took_s * 1000),
            "age_s": round(time.monotonic() - self.ended_s, 1),
        }
        return body if self.reason is None else {**body, "reason": self.reason}
