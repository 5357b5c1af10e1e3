"""The process that leases tasks, runs the engine and publishes answers, and the tree it lives in."""
