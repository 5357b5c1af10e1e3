"""Base64 is looked at where it is needed, and decoded as a whole by nobody at the door."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.admission.content import Base64Content, decode_base64
from forebay.admission.header import read_header
from forebay.core.errors import InvalidImageError
from tests.admission.pictures import picture


@given(st.binary(max_size=400), st.integers(0, 450), st.integers(0, 450))
def test_a_slice_is_that_of_the_decoded_bytes(raw, start, stop):
    content = Base64Content(base64.b64encode(raw).decode())
    assert len(content) == len(raw)
    assert content[start:stop] == raw[start:stop]
    assert content[:] == raw


@given(st.binary(min_size=1, max_size=400))
def test_line_breaks_of_tools_are_no_part_of_it(raw):
    content = Base64Content(base64.encodebytes(raw).decode().replace("\n", " \r\n\t"))
    assert content[:] == raw


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_a_header_is_read_from_the_first_letters_whatever_follows(form):
    letters = base64.b64encode(picture(form, size=(333, 44)) + bytes(3000)).decode()
    garbage = "!" * 4_000_000
    header = read_header(Base64Content(letters[:-4000] + garbage))
    assert (header.format, header.width, header.height) == (form, 333, 44)


def test_a_frame_behind_large_metadata_is_found_without_decoding_the_metadata():
    segment = b"\xff\xe2" + (60_002).to_bytes(2, "big") + bytes(60_000)
    jpeg = picture(size=(333, 44))
    raw = jpeg[:2] + segment * 50 + jpeg[2:]
    letters = bytearray(base64.b64encode(raw))
    letters[1000:79_000] = b"!" * 78_000  # inside the first segment
    assert read_header(Base64Content(letters.decode())).width == 333


@pytest.mark.parametrize("text", ["abc", "图片", "QUJD\x00", "Q" * 4001])
def test_what_has_not_the_letters_or_the_length_of_base64_is_refused_at_once(text):
    with pytest.raises(InvalidImageError, match="not valid base64") as refused:
        Base64Content(text, "image")
    assert refused.value.param == "image"


@pytest.mark.parametrize("text", ["QQ==QQ==", "Q===", "====", "QU-_", "A!!A"])
def test_what_is_not_base64_is_refused_when_it_is_decoded(text):
    with pytest.raises(InvalidImageError, match="not valid base64"):
        decode_base64(Base64Content(text).encoded)


def test_nothing_is_nothing():
    assert Base64Content("")[:12] == b""
