"""Holds for every test."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# On a machine that is busy with other things, how long an example took says nothing of the code.
settings.register_profile("forebay", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("forebay")
