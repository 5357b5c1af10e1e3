"""The Valkey server of a run: the one that Forebay starts, listening on TCP too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis import Redis

from forebay.queue.embedded import EmbeddedValkey
from scripts.running_stack import free_port


@dataclass(frozen=True, slots=True)
class QueueServer:
    """A server that runs. ``tcp`` and ``unix`` are its addresses."""

    tcp: str
    unix: str
    client: Redis

    def url(self, transport: str) -> str:
        """Return the address over ``tcp`` or ``unix``."""
        return self.tcp if transport == "tcp" else self.unix

    def cpu_s(self) -> float:
        """Return the processor time that the server has used."""
        about = self._info("cpu")
        return float(about["used_cpu_sys"]) + float(about["used_cpu_user"])

    def used_memory(self) -> int:
        """Return the bytes that the server has allocated for data."""
        return int(self._info("memory")["used_memory"])

    def version(self) -> str:
        """Return the server's name and version."""
        about = self._info("server")
        name = about.get("server_name", "redis")
        return f"{name} {about.get(f'{name}_version', about['redis_version'])}"

    def _info(self, section: str) -> dict[str, Any]:
        about: Any = self.client.info(section)
        return dict(about)


@contextmanager
def queue_server(folder: Path) -> Iterator[QueueServer]:
    """Run an empty server until the block ends.

    AOF, synced every second as always; no bound on its memory, and its file is not written anew
    while a run is measured.
    """
    with EmbeddedValkey(folder) as server:
        port = free_port()
        with Redis(unix_socket_path=str(server.socket)) as client:
            for name, value in (
                ("maxmemory", "0"),
                ("auto-aof-rewrite-percentage", "0"),
                ("bind", "127.0.0.1"),
                ("port", str(port)),
            ):
                client.config_set(name, value)
            yield QueueServer(f"redis://127.0.0.1:{port}/0", server.url, client)
