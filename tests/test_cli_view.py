"""What the command line prints is what was answered."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path

import pytest

from forebay.ask import AskError, check_pictures, server_at, stream_answer
from forebay.cli_view import console, print_report
from forebay.demo import BurstReport, Fate, Sample, Shot

ODD = r"10:100:20 \[red]"


def test_an_answer_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    sample = Sample(Path("a[b].png"), "[bold]what:100:", ODD)
    print_report(BurstReport((Shot(sample, Fate.ANSWERED, ODD, 1.0),)), 1.0)
    console.print(ODD, end="", markup=False, soft_wrap=True)
    shown = capsys.readouterr().out
    assert shown.count(ODD) == 2
    assert "[bold]what:100:" in shown
    assert "a[b].png" in shown


def test_a_picture_that_cannot_be_read_is_told_by_name(tmp_path: Path) -> None:
    with pytest.raises(AskError, match=r"nowhere\.png"):
        check_pictures([tmp_path / "nowhere.png"])


@pytest.mark.parametrize("url", ["http://::1:8080", "localhost:1", "http://127.0.0.1:1"])
def test_an_address_that_cannot_be_asked_is_told_in_a_line(url: str) -> None:
    assert not server_at(url)
    with pytest.raises(AskError, match=url):
        list(stream_answer(url, [], "what?"))


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b'{"data": []}'])
def test_another_kind_of_server_is_told_in_a_line(body: bytes) -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer_once() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(head.encode() + body)

        server = threading.Thread(target=answer_once)
        server.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(AskError, match="OpenAI-compatible"):
            list(stream_answer(url, [], "what?"))
        server.join()


def test_letters_that_others_take_for_the_end_of_a_line_are_letters() -> None:
    said = "one\u2028two\x85three\x0bfour"
    told = b"".join(
        b"data: " + json.dumps(one, ensure_ascii=False).encode() + b"\r\n\r\n"
        for one in ({"choices": [{"delta": {"content": part}}]} for part in (said, said))
    )
    bodies = [b'{"data": [{"id": "m"}]}', told + b"data: [DONE]\n\n"]
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer_each() -> None:
            for body in bodies:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65536)
                    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n"
                    connection.sendall(f"{head}Connection: close\r\n\r\n".encode() + body)

        server = threading.Thread(target=answer_each)
        server.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert list(stream_answer(url, [], "what?")) == [said, said]
        server.join()
