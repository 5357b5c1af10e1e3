"""Whether a client may name a receiver, and which."""

from __future__ import annotations

from dataclasses import dataclass

from forebay.core.errors import InvalidRequestError
from forebay.outbound.errors import OutboundError
from forebay.outbound.reach import Reach

FIELD = "webhook_url"


@dataclass(frozen=True, slots=True)
class WebhookDoor:
    """Judges the form of a ``webhook_url``; ``reach`` None: webhooks are off here.

    The address behind the host's name is judged at every attempt to deliver, when it counts.
    """

    reach: Reach | None = None

    def accept(self, url: object) -> str:
        """Return the URL as it will be asked. Raises InvalidRequestError with what to do."""
        if self.reach is None:
            raise InvalidRequestError(
                "Webhooks are off on this server: leave webhook_url away and ask for the task, "
                "or have the operator set webhook_secret.",
                param=FIELD,
            )
        if not isinstance(url, str):
            raise InvalidRequestError("webhook_url must be a string: a URL.", param=FIELD)
        try:
            return self.reach.target(url).url
        except OutboundError as error:
            raise InvalidRequestError(f"webhook_url: {error.message}", param=FIELD) from error
