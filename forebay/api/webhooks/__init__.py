"""Webhooks: what a receiver is sent when a task has ended, and how often it is tried."""
