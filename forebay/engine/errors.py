"""The one error of an engine that is no request's."""

from __future__ import annotations


class EngineBrokenError(Exception):
    """The engine's state is unknown, and its process must start anew."""
