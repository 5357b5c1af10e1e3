"""Sockets that the supervisor opens for the API before the API lives."""

from __future__ import annotations

import errno
import socket

TRIES = 50
BACKLOG = 2048


def local_url(host: str, port: int) -> str:
    """Return where clients on this machine reach what listens on ``host``."""
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class NoPortError(Exception):
    """Neither the wanted port nor one of the next can be had."""


def listen(host: str, port: int, *, tries: int = TRIES) -> socket.socket:
    """Return a listening socket on ``port`` or, where that is taken, on the next free one.

    The supervisor holds it while the API is restarted: clients that connect meanwhile wait in the
    backlog and are not refused.

    Raises:
        NoPortError: the address is not this machine's, or no port of the range is free.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for candidate in range(port, min(port + tries, 65536)):
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, candidate))
            listener.listen(BACKLOG)
        except OSError as error:
            listener.close()
            if error.errno != errno.EADDRINUSE:
                raise NoPortError(f"cannot listen on {host}:{candidate}: {error}") from error
            continue
        return listener
    raise NoPortError(f"ports {port} to {min(port + tries, 65536) - 1} of {host} are all taken")


def port_of(listener: socket.socket) -> int:
    """Return the port that a socket listens on."""
    return int(listener.getsockname()[1])
