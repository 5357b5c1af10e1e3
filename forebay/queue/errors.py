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


class ReadOnlyServerError(QueueSetupError):
    """The server is a replica: it takes no writes."""


class WrongServerKindError(QueueSetupError):
    """The URL is of another form than what is behind it, or that is no such server at all."""


class ServerLoginError(QueueSetupError):
    """The server does not know us: no password, or a wrong one."""


class ServerRightsError(QueueSetupError):
    """The server's user may not do what the queue needs."""


class ServerTlsError(QueueSetupError):
    """There is no trusted TLS connection to the server."""


class PartitionsError(QueueSetupError):
    """The queue has another number of partitions."""


class ServerBinaryMissingError(QueueSetupError):
    """No ``valkey-server`` or ``redis-server`` is to be found."""


class DataFolderLockedError(QueueSetupError):
    """Another server works on this data folder."""


class ServerStartError(QueueSetupError):
    """The private server did not start."""


class BackupError(QueueSetupError):
    """A backup cannot be made, or is not whole, or cannot be brought back here."""


class QueueNotRunningError(QueueSetupError):
    """There is no private queue to talk to."""


class BlobStoreSetupError(QueueSetupError):
    """Pictures cannot be kept where the settings say."""
