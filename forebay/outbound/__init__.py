"""HTTP to addresses that strangers name: webhooks, and pictures by URL (docs/adr/0032)."""

from __future__ import annotations
