"""The queue: Lua on Valkey or Redis, token streams, blobs, and the private server."""
