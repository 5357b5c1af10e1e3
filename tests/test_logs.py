"""What the log lines hold, and what they never hold."""

from __future__ import annotations

import ast
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog

import forebay
from forebay.core.errors import InvalidRequestError
from forebay.log_fields import ALLOWED
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


SECRET = "what was asked"


def logged(form: str, capsys: pytest.CaptureFixture[str], write: Callable[[], object]) -> str:
    configure_logs("api", form=form)
    write()
    return capsys.readouterr().err


def test_a_field_that_is_not_on_the_list_is_dropped_and_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log = structlog.get_logger("test")
    shown = logged("json", capsys, lambda: log.info("request", prompt=SECRET, ms=3))
    line = json.loads(shown)
    assert (line["ms"], line["dropped"]) == (3, ["prompt"])
    assert SECRET not in shown


def test_what_is_bound_and_what_libraries_add_is_bound_by_the_list_too(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def write() -> None:
        with structlog.contextvars.bound_contextvars(prompt=SECRET, request_id="a"):
            structlog.get_logger("test").info("request")
        logging.getLogger("library").error("it failed\n%s", SECRET, extra={"body": SECRET})

    shown = logged("json", capsys, write)
    ours, theirs = map(json.loads, shown.splitlines())
    assert (ours["request_id"], ours["dropped"]) == ("a", ["prompt"])
    assert (theirs["event"], theirs["dropped"]) == ("it failed", ["body"])
    assert SECRET not in shown


@pytest.mark.parametrize("form", ["console", "json"])
@pytest.mark.parametrize(
    "error",
    [
        ValueError(SECRET),
        KeyError(SECRET),
        InvalidRequestError(SECRET),
        ExceptionGroup(SECRET, [ValueError(SECRET), TypeError(SECRET)]),
    ],
    ids=lambda one: type(one).__name__,
)
def test_an_errors_words_that_may_quote_the_request_are_left_out(
    form: str, error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    def write() -> None:
        try:
            _fail_of(error)
        except RuntimeError:
            structlog.get_logger("test").exception("request.failed")
        logging.getLogger("library").error("it failed", exc_info=error)

    shown = logged(form, capsys, write)
    assert "the disk is full" in shown
    assert type(error).__name__ in shown
    assert "test_logs.py" in shown
    assert SECRET not in shown


def test_what_is_long_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    log = structlog.get_logger("test")
    shown = logged("json", capsys, lambda: log.info("request", path="/" + "x" * 100_000))
    assert len(shown) < 1000


def test_every_field_that_the_product_logs_is_on_the_list() -> None:
    root = Path(forebay.__file__).parent
    calls = [
        (file, call)
        for file in root.rglob("*.py")
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and _logs(call.func)
    ]
    assert len(calls) > 40
    unknown = {
        f"{file.relative_to(root)}:{call.lineno} {word.arg}"
        for file, call in calls
        for word in call.keywords
        if word.arg not in {*ALLOWED, "exc_info", None}
    }
    assert unknown == set()


def _logs(function: ast.expr) -> bool:
    if isinstance(function, ast.Attribute):
        return isinstance(function.value, ast.Name) and function.value.id == "log"
    return isinstance(function, ast.Name) and function.id in {"write", "tell"}


def _fail_of(error: Exception) -> None:
    raise RuntimeError("the disk is full") from error


def _fail(prompt: str) -> None:
    raise RuntimeError(f"a request of {len(prompt)} characters")
