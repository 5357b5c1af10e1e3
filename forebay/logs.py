"""Where every process's log lines go: JSON for machines, terse lines for a person's terminal.

A log line carries ids, counts and times; never a prompt, an answer or a picture.
"""

from __future__ import annotations

import logging
import sys

import structlog

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
    endings: list[structlog.typing.Processor] = (
        [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(),
                pad_event_to=24,
                # the usual one prints local variables: prompts and pictures
                exception_formatter=structlog.dev.plain_traceback,
            )
        ]
        if for_people
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *endings],
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
