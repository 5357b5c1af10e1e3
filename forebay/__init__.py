"""Forebay: burst-proof, self-hosted serving for a vision-language model."""

__version__ = "0.1.0"
