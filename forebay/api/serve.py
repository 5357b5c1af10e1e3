"""The API process: uvicorn around the application, from settings to the last connection's end."""

from __future__ import annotations

import faulthandler
import gc
import os
import resource
import signal
import socket
from collections.abc import Sequence

import structlog
import uvicorn
import uvloop

from forebay.access.addresses import read_networks
from forebay.api.app import build
from forebay.api.connections.protocol import (
    BoundedProtocol,
    ConnectionBounds,
    bounded_protocol,
)
from forebay.config import Settings
from forebay.core.neighbours import Neighbours
from forebay.logs import configure_logs
from forebay.ops.metrics import Metrics

log = structlog.get_logger("forebay.api")

_BACKLOG = 4096
"""Connections that the system holds for us in a burst."""

_COLLECT_AFTER = 5000
"""New objects that references alone have not freed: those of some hundred requests."""

_OTHER_FILES = 256
"""Open files beside connections: the queue's server, pictures, decoders, logs."""


def run(
    settings: Settings,
    *,
    listen_fds: Sequence[int] = (),
    name: str = "api",
    neighbours: Neighbours | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then let running requests end within ``settings.drain_s``.

    ``listen_fds``: listening sockets that the parent holds open across restarts, so that clients
    meet a pause instead of a refusal; of the settings' port and of every page's own. ``name``: of
    this process, and of no other at that port. ``neighbours``: the others there, with whom it
    counts.
    """
    configure_logs(
        name,
        level=settings.log_level,
        form=settings.log_format,
        file=settings.log_file_terms(),
    )
    for one in listen_fds:
        os.set_inheritable(one, False)  # for this process: a decoder has no business with it
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)  # the supervisor's, before it ends what does not answer
    # a request takes two thirds of the processor time that it takes on asyncio's own loop
    uvloop.run(_serve(settings, listen_fds, name, neighbours or Neighbours()))


async def _serve(
    settings: Settings, listen_fds: Sequence[int], name: str, neighbours: Neighbours
) -> None:
    sockets = [socket.socket(fileno=fd) for fd in listen_fds] or _sockets_of_pages(settings)
    async with build(settings, name, neighbours) as app:
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                backlog=_BACKLOG,
                loop="none",
                lifespan="off",
                ws="none",  # whatever is installed: there are none, and they would not be counted
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,  # who may say where a client is: trusted_proxies
                http=protocol_of(settings, app.state.services.metrics, neighbours),
                timeout_keep_alive=settings.keep_alive_s,
                timeout_graceful_shutdown=max(1, round(settings.drain_s)),
            )
        )
        _spare_collector()
        log.info("api_listening", host=settings.host, port=settings.port)
        await server.serve(sockets=sockets)


def _spare_collector() -> None:
    """Keep the garbage collector from what is there for good: it stops the loop each time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER)


def _sockets_of_pages(settings: Settings) -> list[socket.socket] | None:
    """Return where the API and its pages listen; None: on the one port that the server opens."""
    own = [getattr(settings, name) for name in settings.page_ports()]
    if not own:
        return None
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    return [
        socket.create_server((settings.host, port), family=family, backlog=_BACKLOG)
        for port in (settings.port, *own)
    ]


def protocol_of(
    settings: Settings, metrics: Metrics, neighbours: Neighbours | None = None
) -> type[BoundedProtocol]:
    """Return what reads and writes the server's connections."""
    bounds = ConnectionBounds(
        header_s=settings.header_timeout_s,
        header_bytes=settings.max_header_bytes,
        receive_s=settings.body_timeout_s,
        send_s=settings.send_timeout_s,
        connections=room_for(settings.max_connections),
        connections_of_one=settings.address_connections,
        proxies=read_networks(settings.trusted_proxies),
    )
    return bounded_protocol(
        bounds, lambda error: metrics.refused.labels(error.code).inc(), neighbours
    )


def room_for(connections: int) -> int:
    """Let this process open files for so many connections; return for how many it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHER_FILES
    unbound = resource.RLIM_INFINITY
    if unbound != soft < wanted:
        soft = wanted if hard == unbound else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return connections if soft == unbound else max(1, min(connections, soft - _OTHER_FILES))
