"""The canary of a stack: one worker beside the stable ones, however it fares."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from forebay.config import Settings
from forebay.worker.child import Child, ChildSpec, RestartPolicy, environment_of


def canary_child(
    settings: Settings,
    stack: str,
    log_file: Callable[[str], Path | None],
    on_death: Callable[[Child], Awaitable[None]],
) -> Child:
    """Return the canary of the stack whose children have ``settings``.

    Nobody waits for it, and however often it dies, the stack goes on: it is started again.
    """
    name = f"canary-{stack}"
    command = ("worker", "--supervised", "--name", name)
    spec = ChildSpec(name, command, environment_of(settings.of_canary()), log_file(name))
    return Child(spec, RestartPolicy(tries_to_start=sys.maxsize), on_death)
