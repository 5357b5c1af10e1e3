"""What one of several API processes at a port may do at once of what is set for all of them.

Here only is what may wait for its turn. By what requests are refused all processes count together
(``forebay/core/neighbours.py``): the system does not hand connections out evenly.
"""

from __future__ import annotations

from typing import Final

from forebay.config import Settings

SHARED_OUT: Final = (
    "image_processes",
    "fetch_concurrency",
    "fetch_cache_bytes",
    "webhook_concurrency",
    "webhook_host_concurrency",
)
"""Settings that each process keeps by itself."""


def own_share(settings: Settings) -> Settings:
    """Return the settings as if one process were alone, with its even part; rounded up."""
    count = settings.api_processes
    parts = {name: -(-getattr(settings, name) // count) for name in SHARED_OUT}
    return settings.model_copy(update={**parts, "api_processes": 1})
