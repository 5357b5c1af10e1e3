from __future__ import annotations

import re
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from forebay.core.event_lines import EventLines

STREAMS = st.lists(
    st.sampled_from([b"\r", b"\n", b"\r\n", b"a", b": b", "\u2028".encode(), b"\x85", b"\x0b"])
).map(b"".join)


@given(STREAMS, st.sampled_from([b"", b"\xef\xbb\xbf"]), st.data())
def test_lines_are_the_same_whatever_pieces_their_bytes_come_in(
    stream: bytes, mark: bytes, data: st.DataObject
) -> None:
    told = mark + stream
    cuts = data.draw(st.lists(st.integers(0, len(told)), max_size=6))
    lines, found = EventLines(), []
    for begin, end in pairwise(sorted({0, len(told), *cuts})):
        found += lines.feed(told[begin:end])
    *whole, rest = re.split(rb"\r\n|\r|\n", stream)
    assert found == whole
    assert lines.begun in (len(rest), len(rest) + len(mark))


def test_a_byte_order_mark_is_none_before_the_first_line_alone() -> None:
    mark = b"\xef\xbb\xbf"
    assert list(EventLines().feed(mark + b"a\n" + mark + b"b\n")) == [b"a", mark + b"b"]
