"""The process that leases tasks and answers them, and the process tree that it lives in."""
