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


PARENT = f"00-{TRACE}-{SPAN}-01"


def state_of(tracestate: str) -> str:
    found = read_trace(PARENT, tracestate)
    assert found is not None  # whatever the other header says
    return found.state


@pytest.mark.parametrize(
    ("header", "state"),
    [
        ("", ""),
        ("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"),
        (
            "\ta=1 , fw529a3039@dt=FfFf/{}~ !;:,, b_-*/=2 3,",
            "a=1,fw529a3039@dt=FfFf/{}~ !;:,b_-*/=2 3",
        ),
        ("a=1,A=2", ""),
        ("a=1,b=2=3", ""),
        ("a=1,b", ""),
        ("a=1,b=", ""),
        ("a=1,b=é", ""),
        ("a=1,b=2\n", ""),
        (f"{'k' * 257}=1", ""),
        (f"a={'v' * 257}", ""),
        (",".join(f"k{at}=1" for at in range(32)), ",".join(f"k{at}=1" for at in range(32))),
        (",".join(f"k{at}=1" for at in range(33)), ""),
    ],
)
def test_a_state_goes_on_whole_or_not_at_all(header: str, state: str) -> None:
    assert state_of(header) == state


def test_of_too_long_a_state_the_long_and_then_the_oldest_members_stay_behind() -> None:
    short = [f"k{at}={'v' * 95}" for at in range(6)]  # 98 characters each; 5 and commas: 494
    assert state_of(",".join(short)) == ",".join(short[:5])
    long = f"long={'v' * 150}"
    assert state_of(",".join([long, *short[:3]])) == ",".join([long, *short[:3]])
    assert state_of(",".join([long, *short[:4]])) == ",".join(short[:4])


def test_a_state_means_nothing_without_its_trace_and_stays_with_every_step() -> None:
    assert read_trace("nonsense", "a=1") is None
    found = read_trace(PARENT, "a=1")
    assert found is not None
    assert found.child().state == "a=1"
    assert new_trace().state == ""


@given(st.text(st.characters(codec="latin-1"), max_size=700))
def test_whatever_goes_on_is_a_state_that_fits(header: str) -> None:
    state = state_of(header)
    assert len(state) <= 512
    assert state_of(state) == state


@given(st.text(max_size=80))
def test_no_text_breaks_it(header: str) -> None:
    found = read_trace(header)
    assert found is None or read_trace(str(found)) == found
