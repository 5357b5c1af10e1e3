"""Forebay's tests."""
