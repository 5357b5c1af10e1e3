"""Where every process's log lines go: JSON for machines, terse lines for a person's terminal.

A log line carries ids, counts and times; never a prompt, an answer or a picture: its fields are of
an allow-list (``forebay.log_fields``).
"""

from __future__ import annotations

import logging
import sys

import structlog

from forebay.log_fields import keep_allowed_fields, keep_first_line, write_exception

_QUIET = ("httpx", "httpcore", "uvicorn.access", "uvicorn.error", "asyncio", "PIL")
"""Libraries whose information lines say nothing that ours do not."""


def configure_logs(process: str, *, level: str = "info", form: str = "auto") -> None:
    """Send this process's log, the libraries' lines included, to standard error.

    ``process`` names the process in every line; ``form`` is ``auto``, ``console`` or ``json``.
    """
    for_people = form == "console" or (form == "auto" and sys.stderr.isatty())
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
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=24)
        if for_people
        else structlog.processors.JSONRenderer()
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder(), keep_first_line],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                write_exception,
                keep_allowed_fields,
                ending,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


def _process_namer(process: str) -> structlog.typing.Processor:
    def add(
        logger: structlog.typing.WrappedLogger, method: str, event: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        del logger, method
        event.setdefault("process", process)
        return event

    return add
