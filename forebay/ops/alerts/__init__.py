"""Alerts: one file of rules, judged here without Prometheus and by Prometheus alike."""

from __future__ import annotations
