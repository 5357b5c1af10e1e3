from __future__ import annotations

import pytest

from bench.sse import Said, ServerSaidError, StreamEnd, read_line


def test_a_delta_is_its_text() -> None:
    assert read_line('data: {"choices": [{"delta": {"content": "wor"}}]}') == Said("wor")
    assert read_line('data:{"choices":[{"delta":{"reasoning_content":"hm"}}]}') == Said("hm")


@pytest.mark.parametrize(
    "line",
    [
        "",
        ": keep-alive",
        "id: 7-0",
        "event: message",
        'data: {"choices": [{"delta": {"role": "assistant", "content": ""}}], "usage": null}',
        'data: {"choices": [{"delta": {}, "finish_reason": "length"}]}',
    ],
)
def test_lines_without_text_say_nothing(line: str) -> None:
    assert read_line(line) == Said()


def test_the_usage_counts_tokens() -> None:
    line = 'data: {"choices": [], "usage": {"prompt_tokens": 350, "completion_tokens": 32}}'
    assert read_line(line) == Said("", 32)


def test_the_end_is_said() -> None:
    assert read_line("data: [DONE]") == StreamEnd()


def test_an_error_in_the_stream_is_raised() -> None:
    with pytest.raises(ServerSaidError, match="the task failed"):
        read_line('data: {"error": {"message": "the task failed"}}')


def test_what_is_not_json_is_refused() -> None:
    with pytest.raises(ValueError, match="Expecting"):
        read_line("data: {half")
