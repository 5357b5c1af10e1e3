"""Alerts at the door: what fires, silences, the history, a test of the channels."""

from __future__ import annotations
