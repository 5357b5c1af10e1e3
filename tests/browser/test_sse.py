"""The page's parser of server-sent events, run by the browser on streams cut anywhere."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page

from tests.browser.conftest import Visit

pytestmark = pytest.mark.browser

READ = """async ([text, size]) => {
    const bytes = new TextEncoder().encode(text);
    const {readEvents} = await import("/ui/sse.js");
    const body = new ReadableStream({start(sink) {
        for (let at = 0; at < bytes.length; at += size)
            sink.enqueue(bytes.slice(at, at + size));
        sink.close();
    }});
    const found = [];
    for await (const event of readEvents(body)) found.push([event.event, event.data, event.id]);
    return found;
}"""


def read(page: Page, text: str, size: int) -> list[list[str]]:
    found: list[list[str]] = page.evaluate(READ, [text, size])
    return found


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_are_the_same_however_the_bytes_are_cut(
    visit: Visit, size: int, newline: str
) -> None:
    lines = [
        ": waiting",
        "",
        "id: 1-0",
        "data: 价格",
        "data:second",
        "",
        "event: note",
        "data: x",
        "",
    ]
    found = read(visit.page, newline.join([*lines, ""]), size)
    assert found == [["message", "价格\nsecond", "1-0"], ["note", "x", "1-0"]]


def test_an_event_without_its_empty_line_is_not_an_event(visit: Visit) -> None:
    assert read(visit.page, "data: whole\n\ndata: half\n", 5) == [["message", "whole", ""]]


def test_a_stream_that_never_ends_its_line_is_given_up(visit: Visit) -> None:
    with pytest.raises(Exception, match="not an event stream"):
        read(visit.page, "data: " + "x" * (3 << 19), 1 << 19)
