"""What the log lines hold, and what they never hold."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import structlog

from forebay.logs import configure_logs


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.mark.parametrize("form", ["console", "json"])
def test_an_errors_line_has_the_trace_and_no_local_variable(
    form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logs("api", form=form)
    prompt = "what was asked"
    try:
        _fail(prompt)
    except RuntimeError:
        structlog.get_logger("test").exception("request.failed")
    shown = capsys.readouterr().err
    assert "RuntimeError: a request of 14 characters" in shown
    assert prompt not in shown


def _fail(prompt: str) -> None:
    raise RuntimeError(f"a request of {len(prompt)} characters")
