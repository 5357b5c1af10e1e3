from __future__ import annotations

import socket

import pytest

from forebay.worker.ports import NoPortError, listen, local_url, port_of


def test_a_free_port_is_taken_and_a_taken_one_gives_way_to_a_later() -> None:
    with listen("127.0.0.1", 20_000) as first, listen("127.0.0.1", port_of(first)) as second:
        assert port_of(second) > port_of(first)
        with socket.create_connection(("127.0.0.1", port_of(second)), timeout=5):
            pass


def test_when_no_port_of_the_range_is_free_the_range_is_named() -> None:
    with listen("127.0.0.1", 20_000) as first:
        port = port_of(first)
        with pytest.raises(NoPortError, match=f"ports {port} to {port} of 127.0.0.1"):
            listen("127.0.0.1", port, tries=1)


def test_an_address_of_another_machine_is_refused_with_its_reason() -> None:
    with pytest.raises(NoPortError, match=r"cannot listen on 192\.0\.2\.1:20000"):
        listen("192.0.2.1", 20_000)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::1", "http://[::1]:80"),
    ],
)
def test_the_local_address_is_one_that_clients_can_dial(host: str, url: str) -> None:
    assert local_url(host, 80) == url
