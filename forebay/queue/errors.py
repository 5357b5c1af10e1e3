"""What can be wrong with a queue's server or folder, for the operator who starts it.

Clients never see these: they are raised at start, and say what to do.
"""

from __future__ import annotations


class QueueSetupError(Exception):
    """The queue cannot be started as it is. ``mend``: what the operator can do."""

    def __init__(self, message: str, *, mend: str) -> None:
        super().__init__(f"{message} {mend}")
        self.mend = mend


class EvictionPolicyError(QueueSetupError):
    """The server may throw accepted tasks away when its memory is full."""


class ServerTooOldError(QueueSetupError):
    """The server lacks functions (before Redis 7.0)."""


class ServerBinaryMissingError(QueueSetupError):
    """No ``valkey-server`` or ``redis-server`` is to be found."""


class DataFolderLockedError(QueueSetupError):
    """Another server works on this data folder."""


class ServerStartError(QueueSetupError):
    """The private server did not start."""
