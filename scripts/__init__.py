"""Commands of the repository: installing, locks, generated docs, screenshots."""
