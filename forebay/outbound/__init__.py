"""HTTP to addresses that strangers name: webhooks, and pictures by URL (docs/adr/0032)."""

from __future__ import annotations

from forebay.outbound.client import Bounds, Reply, SafeClient
from forebay.outbound.errors import OutboundError, UrlRefusedError
from forebay.outbound.reach import Reach, Target

__all__ = ["Bounds", "OutboundError", "Reach", "Reply", "SafeClient", "Target", "UrlRefusedError"]
