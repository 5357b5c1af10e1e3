from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from forebay.outbound.addresses import parse_address
from forebay.outbound.errors import AddressRefusedError, OutboundError, UrlRefusedError
from forebay.outbound.reach import Reach

PUBLIC = Reach()

REFUSED = [
    "ftp://example.com/", "file:///etc/passwd", "gopher://example.com/", "javascript:alert(1)",
    "//example.com/", "example.com", "http://", "http:///path", "http://?x", "",
    "http://user@example.com/", "http://user:secret@example.com/", "http://@example.com/",
    "http://:@example.com/", "http://good.com\\@example.com/", "http://example.com\\.evil.com/",
    "http://exa mple.com/", "http://example.com/\r\nX: y", "http://example.com/\x00",
    "http://localhost/", "http://LOCALHOST/", "http://localhost./", "http://a.localhost/",
    "http://redis/", "http://example.com:22/", "http://example.com:8080/", "http://example.com:0/",
    "http://example.com:99999/", "http://example.com:x/", "https://example.com:6379/",
    "http://2130706433/", "http://0x7f000001/", "http://0x7f.1/", "http://0177.0.0.1/",
    "http://127.1/", "http://1.2.3.4.5/", "http://1.2.3.08/", "http://256.1.1.1/", "http://0/",
    "http://example.com.0x1/", "http://a..b.com/", "http://.com/", "http://-a.com/", "http://*.com/",
    "http://exa%6dple.com/", "http://127.0.0.1%2f.example.com/", "http://example.com%00.evil.com/",
    "http://[fe80::1%25eth0]/", "http://[fe80::1%eth0]/", "http://[::1", "http://[x]/",
    "http://" + "a" * 64 + ".com/", "http://" + "a." * 127 + "com/", "https://e.com/" + "a" * 2048,
]  # fmt: skip

INSIDE = [
    "http://127.0.0.1/", "http://127.0.0.1./", "https://169.254.169.254/latest/meta-data/",
    "http://[::1]/", "http://[::ffff:127.0.0.1]/", "http://[::ffff:7f00:1]/", "http://10.0.0.1/",
    "http://[64:ff9b::10.0.0.1]/", "http://[fd00:ec2::254]/", "http://[2002:7f00:1::]/",
    "http://0.0.0.0/", "http://127。0。0。1/", "http://１２７.0.0.1/",
]  # fmt: skip


@pytest.mark.parametrize("url", REFUSED)
def test_a_url_of_another_form_is_refused(url: str) -> None:
    with pytest.raises(UrlRefusedError):
        PUBLIC.target(url)


@pytest.mark.parametrize("url", INSIDE)
def test_an_address_inside_is_refused_in_every_notation(url: str) -> None:
    with pytest.raises(OutboundError):
        PUBLIC.target(url)


@pytest.mark.parametrize(
    ("url", "host", "port", "path", "authority"),
    [
        ("https://example.com", "example.com", 443, b"/", "example.com"),
        ("http://EXAMPLE.com.:80/a?b=c#d", "example.com", 80, b"/a?b=c", "example.com"),
        ("https://example.com:80/", "example.com", 80, b"/", "example.com:80"),
        ("https://bücher.example/ü", "xn--bcher-kva.example", 443, b"/%C3%BC",
         "xn--bcher-kva.example"),
        ("http://例子.测试/", "xn--fsqu00a.xn--0zwm56d", 80, b"/", "xn--fsqu00a.xn--0zwm56d"),
        ("http://8.8.8.8/x", "8.8.8.8", 80, b"/x", "8.8.8.8"),
        ("https://[2606:4700:4700::1111]/", "2606:4700:4700::1111", 443, b"/",
         "[2606:4700:4700::1111]"),
    ],
)  # fmt: skip
def test_a_public_url_is_taken_apart(
    url: str, host: str, port: int, path: bytes, authority: str
) -> None:
    target = PUBLIC.target(url)
    assert (target.host, target.port, target.path) == (host, port, path)
    assert target.authority == authority
    assert PUBLIC.target(target.url) == target


HOSTS = st.text(st.sampled_from("0123456789abcdefx.:%[]@/\\#?-_。１ ｌ①"), min_size=1, max_size=24)


@given(HOSTS)
@example("127.0.0.1")
@example("[::1]")
def test_whatever_is_let_through_holds_no_inside_address(host: str) -> None:
    try:
        target = PUBLIC.target(f"http://{host}/")
    except OutboundError:
        return
    address = parse_address(target.host)
    if address is None:
        assert "." in target.host
        assert not target.host.rpartition(".")[2].isdigit()
    else:
        PUBLIC.check_addresses(target.host, [address])
    assert PUBLIC.target(target.url) == target


def test_every_address_of_a_name_counts() -> None:
    outside, inside = parse_address("8.8.8.8"), parse_address("10.0.0.1")
    assert outside is not None
    assert inside is not None
    PUBLIC.check_addresses("example.com", [outside])
    for mixed in ([inside], [outside, inside], [inside, outside]):
        with pytest.raises(AddressRefusedError):
            PUBLIC.check_addresses("example.com", mixed)


def test_an_operator_opens_names_ranges_and_ports() -> None:
    reach = Reach.from_words(["hooks.internal", "10.1.0.0/16", "fd00::/8", "192.168.1.5"], [8080])
    inside = parse_address("10.1.2.3")
    assert inside is not None
    for url in ("http://10.1.2.3:8080/", "http://[fd00::1]:8080/", "http://192.168.1.5:8080/",
                "http://[::ffff:10.1.2.3]:8080/", "http://receiver:8080/"):  # fmt: skip
        assert reach.target(url).port == 8080
    reach.check_addresses("anything.example", [inside])
    loopback = parse_address("127.0.0.1")
    assert loopback is not None
    reach.check_addresses("hooks.internal", [loopback])
    for url in ("http://10.2.0.1:8080/", "http://192.168.1.6:8080/", "http://10.1.2.3/"):
        with pytest.raises(OutboundError):
            reach.target(url)
    with pytest.raises(AddressRefusedError):
        reach.check_addresses("other.internal", [loopback])


@pytest.mark.parametrize(
    "word", ["10.1.2.3/8", "http://x/", "a b", "*.corp", "", "1.2.3", "::ffff:10.0.0.0/104"]
)
def test_an_operators_mistake_is_told(word: str) -> None:
    with pytest.raises(ValueError, match=r"neither|write"):
        Reach.from_words([word], [80])
