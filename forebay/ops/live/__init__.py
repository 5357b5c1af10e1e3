"""The console's figures: counted everywhere, computed once a second, the same for all who look."""

from __future__ import annotations
