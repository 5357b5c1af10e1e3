"""Runs the model: prepared requests in, events and step statistics out. Knows no queue, no HTTP."""
