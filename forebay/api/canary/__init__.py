"""Canaries at the door: their share, how they do, the log."""
