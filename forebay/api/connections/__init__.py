"""Connections before they are requests: how many, how slow, and how long their headers may be."""
