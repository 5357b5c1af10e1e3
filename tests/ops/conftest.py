from __future__ import annotations

from tests.api.conftest import decoders, redis, valkey

__all__ = ["decoders", "redis", "valkey"]
