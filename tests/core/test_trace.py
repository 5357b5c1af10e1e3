from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.core.trace import Trace, new_trace, read_trace

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"


def test_what_is_written_is_read() -> None:
    trace = new_trace()
    assert read_trace(str(trace)) == trace
    child = trace.child()
    assert (child.trace_id, child.flags) == (trace.trace_id, trace.flags)
    assert child.span_id != trace.span_id


@pytest.mark.parametrize(
    ("header", "flags"),
    [
        (f"00-{TRACE}-{SPAN}-01", "01"),
        (f"00-{TRACE}-{SPAN}-ff", "01"),
        (f"00-{TRACE}-{SPAN}-02", "00"),
        (f"cc-{TRACE}-{SPAN}-01-what-comes-later", "01"),
        (f"cc-{TRACE}-{SPAN}-01", "01"),
    ],
)
def test_a_good_header_is_read(header: str, flags: str) -> None:
    assert read_trace(header) == Trace(TRACE, SPAN, flags)


@pytest.mark.parametrize(
    "header",
    [
        "",
        TRACE,
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-01-more",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-01\n",
        f"cc-{TRACE}-{SPAN}-01.more",
    ],
)
def test_a_bad_one_is_none(header: str) -> None:
    assert read_trace(header) is None


@given(st.text(max_size=80))
def test_no_text_breaks_it(header: str) -> None:
    found = read_trace(header)
    assert found is None or read_trace(str(found)) == found
