"""A client of the tasks API: submit, follow, come back, cancel, whatever the network does.

It needs httpx and nothing else of the package: no torch, no web framework, no queue.
"""

from forebay.client.asking import Options, Picture
from forebay.client.blocking import BlockingClient
from forebay.client.client import Client
from forebay.client.errors import (
    BusyError,
    ClientError,
    ConflictError,
    InvalidError,
    NotAllowedError,
    NotFoundError,
    RefusedError,
    UnexpectedReplyError,
    UnreachableError,
)
from forebay.client.events import Delta, Ended, Event, Queued, Restart, Started
from forebay.client.task import NoAnswerError, Output, Task, TaskFault

__all__ = [
    "BlockingClient",
    "BusyError",
    "Client",
    "ClientError",
    "ConflictError",
    "Delta",
    "Ended",
    "Event",
    "InvalidError",
    "NoAnswerError",
    "NotAllowedError",
    "NotFoundError",
    "Options",
    "Output",
    "Picture",
    "Queued",
    "RefusedError",
    "Restart",
    "Started",
    "Task",
    "TaskFault",
    "UnexpectedReplyError",
    "UnreachableError",
]
