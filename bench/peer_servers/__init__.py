"""Servers that users would build around ``transformers``; they run in the peers' environment."""
