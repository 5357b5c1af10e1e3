"""The door: speaks HTTP, knows no torch."""
