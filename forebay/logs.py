"""What every process's log lines look like: JSON for machines, terse for a person's terminal.

A log line carries ids, counts and times; never a prompt, an answer or a picture: its fields are of
an allow-list (``forebay.log_fields``).
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import Final

import structlog

from forebay.log_fields import keep_allowed_fields, keep_first_line, write_exception
from forebay.log_file import LogFile, LogFileTerms, reopen_on_hangup

OWN: Final = "forebay"
"""What the names of our own loggers begin with."""

_QUIET = ("httpx", "httpcore", "uvicorn.access", "uvicorn.error", "asyncio", "PIL")
"""Libraries whose information lines say nothing that ours do not."""


def configure_logs(
    process: str, *, level: str = "info", form: str = "auto", file: LogFileTerms | None = None
) -> None:
    """Send this process's log, the libraries' lines included, to standard error or a file.

    ``process`` names the process in every line; ``form`` is ``auto``, ``console`` or ``json``.

    Raises:
        LogFileError: the file cannot be written.
    """
    on_terminal = file is None and sys.stderr.isatty()
    for_people = form == "console" or (form == "auto" and on_terminal)
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(
            fmt="%H:%M:%S" if for_people else "iso", utc=not for_people
        ),
        _process_namer(process),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    ending: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=on_terminal, pad_event_to=24)
        if for_people
        else structlog.processors.JSONRenderer()
    )
    handler = _handler(process, file)
    handler.setFormatter(_formatter(shared, ending))
    _put_in_place_of_all(handler)
    set_level(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


def set_level(level: str) -> None:
    """Log our own lines from this level on.

    Libraries say no more than at ``info``: what they tell of at ``debug`` may quote a request.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    logging.getLogger(OWN).setLevel(number)
    logging.getLogger().setLevel(max(number, logging.INFO))


def _handler(process: str, file: LogFileTerms | None) -> logging.Handler:
    if file is None:
        return logging.StreamHandler()
    handler = LogFile(file, process)
    reopen_on_hangup(handler)
    return handler


def _formatter(
    shared: Sequence[structlog.typing.Processor], ending: structlog.typing.Processor
) -> logging.Formatter:
    """Return what makes a line; libraries' lines, too, go through ``shared`` first."""
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder(), keep_first_line],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            write_exception,
            keep_allowed_fields,
            ending,
        ],
    )


def _put_in_place_of_all(handler: logging.Handler) -> None:
    root = logging.getLogger()
    for old in root.handlers:
        if isinstance(old, LogFile):
            old.close()
    root.handlers[:] = [handler]


def _process_namer(process: str) -> structlog.typing.Processor:
    def add(
        logger: structlog.typing.WrappedLogger, method: str, event: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        del logger, method
        event.setdefault("process", process)
        return event

    return add
