"""The console's public API: figures, workers, tasks of all tenants, limits; for administrators."""

from __future__ import annotations
