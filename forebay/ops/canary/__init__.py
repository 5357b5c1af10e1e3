"""Canaries: how they are judged, and what takes their share back."""
