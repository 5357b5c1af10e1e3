"""A picture's size is read from its header, as Pillow would read it, without decoding."""

from __future__ import annotations

import io
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from forebay.admission.header import fitted_size, read_header
from forebay.core.errors import InvalidImageError
from tests.admission.pictures import hostile, picture

FORMS = [
    ("JPEG", {}),
    ("JPEG", {"progressive": True}),
    ("JPEG", {"exif": b"Exif\x00\x00" + bytes(60_000)}),
    ("PNG", {}),
    ("WEBP", {}),
    ("WEBP", {"lossless": True}),
    ("WEBP", {"exif": b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x00"}),
    ("GIF", {}),
    ("BMP", {}),
]


@pytest.mark.parametrize(("form", "save"), FORMS)
@pytest.mark.parametrize("size", [(1, 1), (17, 300), (1000, 33)])
def test_the_header_tells_format_and_size(form, save, size):
    content = picture(form, size=size, **save)
    header = read_header(content)
    assert (header.format, header.width, header.height) == (form, *size)
    assert Image.open(io.BytesIO(content)).size == size


def test_a_top_down_bmp_has_a_positive_height():
    content = bytearray(picture("BMP", size=(40, 30)))
    content[22:26] = (-30).to_bytes(4, "little", signed=True)
    assert read_header(bytes(content)).height == 30


@pytest.mark.parametrize("name", ["text", "html", "svg", "zip", "pdf", "tiff", "one-byte"])
def test_a_file_off_the_allow_list_is_refused(name):
    with pytest.raises(InvalidImageError, match="not a JPEG, PNG, WEBP, GIF or BMP"):
        read_header(hostile()[name])


@pytest.mark.parametrize("name", ["jpeg-start-only", "jpeg-without-frame", "png-signature-only"])
def test_a_header_cut_short_is_refused(name):
    with pytest.raises(InvalidImageError, match="cut short or damaged"):
        read_header(hostile()[name])


@pytest.mark.parametrize("filler", [b"\xff", b"\xff\x01", b"\xff\xe0\x00\x02"])
def test_a_file_of_nothing_but_markers_is_refused_after_its_first_bytes(filler):
    began = time.process_time()
    with pytest.raises(InvalidImageError):
        read_header(b"\xff\xd8" + filler * 5_000_000)
    assert time.process_time() - began < 0.1


@settings(max_examples=300, deadline=None)
@given(
    start=st.sampled_from(
        [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"RIFFxxxxWEBP"]
    ),
    rest=st.binary(max_size=200),
)
def test_any_bytes_give_a_header_or_a_clean_refusal(start, rest):
    try:
        header = read_header(start + rest)
    except InvalidImageError:
        return
    assert header.width > 0
    assert header.height > 0


@given(st.integers(1, 20_000), st.integers(1, 20_000), st.integers(28, 2048))
def test_a_fitted_picture_keeps_its_shape_within_the_side(width, height, side):
    fitted = fitted_size(width, height, side)
    assert max(fitted) <= max(side, 1)
    assert fitted == fitted_size(height, width, side)[::-1]
    if max(width, height) <= side:
        assert fitted == (width, height)
