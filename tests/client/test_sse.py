"""Events are the same whatever pieces their bytes come in."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.api import sse
from forebay.client import sse as reading
from forebay.client.errors import UnexpectedReplyError
from forebay.client.sse import EventReader, SentEvent

TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
"""With U+2028, U+0085, vertical tabs and all else that some take for the end of a line."""


@given(st.lists(TEXTS, max_size=5), st.data())
def test_what_the_server_writes_is_read_whatever_pieces_it_comes_in(texts, data) -> None:
    sent = b"".join(
        sse.event({"text": text}, name="delta", stream_id=f"{at}-0")
        for at, text in enumerate(texts)
    )
    sent = sse.reconnect_after(1.5) + sse.KEEP_ALIVE + sent
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=6)))
    reader, found = EventReader(), []
    for begin, end in zip([0, *cuts], [*cuts, len(sent)], strict=True):
        found += reader.feed(sent[begin:end])
    assert [(one.name, one.place) for one in found] == [
        ("delta", f"{at}-0") for at in range(len(texts))
    ]
    assert [json.loads(one.data)["text"] for one in found] == texts
    assert reader.retry_s == 1.5


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_end_of_a_line_of_the_form_is_one(end: str) -> None:
    told = f": hi{end}event: a{end}data: 1{end}data:2{end}id: 7{end}{end}data: x{end}{end}"
    reader = EventReader()
    found = [one for byte in told.encode() for one in reader.feed(bytes([byte]))]
    assert found == [SentEvent("a", "1\n2", "7"), SentEvent("message", "x")]


def test_an_event_without_an_end_and_letters_that_are_none_are_refused(monkeypatch) -> None:
    monkeypatch.setattr(reading, "MOST_EVENT_BYTES", 100)
    with pytest.raises(UnexpectedReplyError):
        list(EventReader().feed(b"data: " + b"x" * 200))
    reader = EventReader()
    with pytest.raises(UnexpectedReplyError):
        _ = [one for _ in range(100) for one in reader.feed(b"data: yyyyyyyy\n")]
    with pytest.raises(UnexpectedReplyError):
        list(EventReader().feed(b"data: \xff\n"))
