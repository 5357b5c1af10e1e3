"""The queue's server under test: a real one on TCP, killed and started on its own data."""

from __future__ import annotations

from pathlib import Path

from forebay.queue.binaries import find_server_binary
from tests.chaos.processes import Process

FAKETIME_NAMES = ("libfaketimeMT.so.1", "libfaketime.so.1", "libfaketimeMT.1.dylib")
FAKETIME_FOLDERS = ("/usr/lib/*/faketime", "/usr/lib/faketime", "/usr/local/lib/faketime")


def find_faketime() -> Path | None:
    """Return Debian's ``libfaketime`` if this machine has it: it makes a process's clock jump."""
    found = [
        path
        for folder in FAKETIME_FOLDERS
        for name in FAKETIME_NAMES
        for path in Path("/").glob(f"{folder[1:]}/{name}")
    ]
    return found[0] if found else None


class Valkey:
    """The server as the supervisor runs it (AOF, no eviction), but on a TCP port.

    Nobody syncs its files here: no fault of ours takes away what the kernel has.
    """

    def __init__(self, folder: Path, port: int, *, maxmemory_mb: int = 512) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = port
        self.maxmemory = maxmemory_mb * 2**20
        self._clock = folder / "clock"
        self.process = Process(
            "valkey",
            [
                str(find_server_binary()),
                *("--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)),
                *("--appendonly", "yes", "--appendfsync", "no", "--save", ""),
                *("--maxmemory", str(self.maxmemory), "--maxmemory-policy", "noeviction"),
                *("--hash-max-listpack-value", "4096", "--stream-node-max-bytes", "1024"),
            ],
            folder.parent / "valkey.log",
            self._faked_time(),
        )
        self.jump_to(0)

    def _faked_time(self) -> dict[str, str]:
        library = find_faketime()
        if library is None:
            return {}
        return {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._clock),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # timers are not what a clock jump moves
        }

    def jump_to(self, offset_s: int) -> None:
        """Set the server's clock to so many seconds beside the true time."""
        new = self._clock.with_suffix(".new")
        new.write_text(f"{offset_s:+d}\n")
        new.replace(self._clock)
