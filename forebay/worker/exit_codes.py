"""What a worker's exit code says of its end."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Ends that a worker chose itself because it could not go on."""

    ENGINE_BROKEN = 3
    ENGINE_HUNG = 4
    LOOP_HUNG = 5
    ASKED = 6
    """An administrator, or the care of old workers, wants it to begin anew."""
