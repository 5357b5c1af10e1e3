"""The words that every other part shares. Standard library only."""
