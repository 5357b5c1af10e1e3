"""Why a request to a stranger's address came to nothing.

The messages may be shown to that stranger: none of them holds an address, a name that is not the
stranger's own, or a word of what an inside server said.
"""

from __future__ import annotations

from typing import ClassVar


class OutboundError(Exception):
    """Base. ``reason``: a stable word for logs and metrics; ``message``: fit for strangers."""

    reason: ClassVar[str] = "failed"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class UrlRefusedError(OutboundError):
    """The URL may not be asked, whatever its host resolves to."""

    reason = "url_refused"


class AddressRefusedError(OutboundError):
    """The host leads, or partly leads, to addresses that are not the public internet's."""

    reason = "address_refused"


class NameUnknownError(OutboundError):
    """The host's name resolves to nothing."""

    reason = "name_unknown"


class ConnectFailedError(OutboundError):
    """No connection to the host could be made."""

    reason = "connect_failed"


class TlsFailedError(OutboundError):
    """The host's certificate, or its TLS, is not in order."""

    reason = "tls_failed"


class TimedOutError(OutboundError):
    """A part of the request, or the whole of it, took longer than it may."""

    reason = "timed_out"


class TooLargeError(OutboundError):
    """The answer's head or body is larger than it may be, as sent or as decompressed."""

    reason = "too_large"


class BrokenAnswerError(OutboundError):
    """What came is no answer in HTTP, or ended before its end."""

    reason = "broken_answer"


class TooManyRedirectsError(OutboundError):
    """The answer leads from address to address for longer than it may."""

    reason = "too_many_redirects"
