"""Forms cut at their boundary: as other programs write them, and damaged in every way."""

from __future__ import annotations

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from python_multipart.multipart import FormParser

from forebay.api.charsets import form_charset
from forebay.api.upload import MOST_HEADER_BYTES, MOST_TEXT_BYTES, FormBounds, cut
from forebay.core.errors import InvalidRequestError
from tests.api.door import Door

BOUNDS = FormBounds(files=2, texts=5)
NAMES = st.text(
    st.characters(min_codepoint=32, max_codepoint=0x2FFF, exclude_characters="\\"),
    min_size=1,
    max_size=20,
)
"""Without the sign that is an escape to some and a letter to others."""
CONTENT = st.one_of(
    st.binary(max_size=200),
    st.lists(st.sampled_from([b"\r\n", b"--", b"b", b"\r", b"\n", b"x", b"--b"])).map(b"".join),
)


def form(*parts: tuple[bytes, bytes], end: bytes = b"--b--\r\n") -> bytes:
    return b"".join(b"--b\r\n" + head + b"\r\n\r\n" + body + b"\r\n" for head, body in parts) + end


def field(name: bytes, more: bytes = b"") -> bytes:
    return b'Content-Disposition: form-data; name="' + name + b'"' + more


@given(
    texts=st.lists(
        st.tuples(NAMES, st.text(st.characters(codec="utf-8"), max_size=50)), max_size=5
    ),
    files=st.lists(st.tuples(NAMES, CONTENT), max_size=2),
)
def test_what_a_client_library_writes_is_read_as_it_was_meant(texts, files):
    request = httpx.Request(
        "POST",
        "http://door/",
        files=[(name, (None, text.encode(), "text/plain")) for name, text in texts]
        + [(name, ("图 a;b.jpg", content)) for name, content in files],
        headers={"Content-Type": "multipart/form-data; boundary=----edge"},
    )
    if not texts and not files:
        return
    read = cut(request.read(), b"----edge", BOUNDS)
    expected = [(_escaped(name), text) for name, text in texts]
    assert list(read.items) == expected + [(_escaped(name), content) for name, content in files]


def _escaped(name: str) -> str:
    """Return a name as it comes out of the quotes that browsers and client libraries use."""
    return name.replace('"', "%22")


@given(parts=st.lists(st.tuples(st.booleans(), CONTENT), min_size=1, max_size=5))
def test_another_reader_finds_the_same_parts(parts):
    if any(b"\r\n--b" in b"\r\n" + content for _, content in parts):
        return  # the boundary itself, which a form may not have in it
    if sum(is_file for is_file, _ in parts) > BOUNDS.files:
        return
    body = form(
        *((field(b"n", b'; filename="f"' if is_file else b""), it) for is_file, it in parts)
    )
    seen: list[bytes] = []

    def take_file(file) -> None:
        file.file_object.seek(0)
        seen.append(file.file_object.read())

    other = FormParser(
        "multipart/form-data", lambda one: seen.append(one.value or b""), take_file, boundary=b"b"
    )
    other.write(body)
    other.finalize()
    assert [it for _, it in cut(body, b"b", BOUNDS).items] == [
        it if is_file else _text(it) for is_file, it in parts
    ]
    assert seen == [it for _, it in parts]


def _text(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content.decode("latin-1")


@given(body=st.binary(max_size=300), at=st.integers(0, 300))
def test_no_bytes_do_more_than_be_refused(body, at):
    whole = form((field(b"image", b'; filename="a"'), b"picture"), (field(b"prompt"), b"What?"))
    for damaged in (body, whole[:at] + body, whole[: at % len(whole)], body + whole):
        try:
            cut(damaged, b"b", BOUNDS)
        except InvalidRequestError:
            continue


def test_an_epilogue_is_passed_over():
    body = b"--b\r\n" + field(b"a") + b"\r\n\r\n1\r\n--b--\r\nepilogue --b\r\n"
    assert cut(body, b"b", BOUNDS).items == (("a", "1"),)


def test_an_empty_form_has_no_fields_and_an_empty_file_is_one():
    assert cut(b"--b--\r\n", b"b", BOUNDS).items == ()
    assert cut(form((field(b"a", b'; filename=""'), b"")), b"b", BOUNDS).items == (("a", b""),)


def test_a_name_sent_twice_has_its_last_value_and_both_are_there():
    read = cut(form((field(b"a"), b"1"), (field(b"a"), b"2")), b"b", BOUNDS)
    assert (read.get("a"), read.get("b"), read.get("b", "none")) == ("2", None, "none")
    assert read.names() == {"a"}
    assert len(read.items) == 2


def test_headers_in_other_spellings_are_read():
    head = (
        b'content-type: text/plain\r\nCONTENT-DISPOSITION:  Form-Data; name=plain; filename="a\\"b"'
    )
    assert cut(form((head, b"x")), b"b", BOUNDS).items == (("plain", b"x"),)


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b"", "no end"),
        (b"--c\r\n\r\n", "boundary"),
        (form((field(b"a"), b"1"), end=b""), "no end"),
        (b"--b\r\n" + field(b"a"), "no end"),
        (b"--bX\r\n" + field(b"a") + b"\r\n\r\n1\r\n--b--", "boundary"),
        (form((b"Content-Type: text/plain", b"1")), "Content-Disposition"),
        (form((b"Content-Disposition: form-data", b"1")), '"name"'),
        (form((b"X: " + b"x" * MOST_HEADER_BYTES, b"1")), "header size"),
        (form((field(b"a"), b"x" * (MOST_TEXT_BYTES + 1))), str(MOST_TEXT_BYTES)),
        (form(*[(field(b"a"), b"1")] * 6), "at most 2 files and 5 texts"),
        (form(*[(field(b"a", b'; filename="f"'), b"1")] * 3), "at most 2 files and 5 texts"),
    ],
)  # fmt: skip
def test_a_damaged_form_is_refused_and_says_where(body, what):
    with pytest.raises(InvalidRequestError, match="the multipart form is damaged") as refused:
        cut(body, b"b", BOUNDS)
    assert what in refused.value.message


def test_as_many_as_may_be_are_taken():
    parts = [(field(b"t"), b"1")] * 5 + [(field(b"f", b'; filename="f"'), b"1")] * 2
    assert len(cut(form(*parts), b"b", BOUNDS).items) == 7


BAD_CHARSETS = ["zlib", "hex", "rot13", "undefined", "punycode", "idna", "unicode_escape", "a\0b"]
TAKERS = ["/predict", "/v1/tasks", "/v1/infer", "/v1/files"]


@pytest.mark.parametrize("said", [*BAD_CHARSETS, "x" * 5000, "utf-16", "../os", ""])
def test_what_is_no_plain_encoding_is_refused(said: str) -> None:
    with pytest.raises(InvalidRequestError, match="UTF-8"):
        form_charset(f'multipart/form-data; boundary=b; charset="{said}"')


@pytest.mark.parametrize(
    ("said", "name"), [("UTF8", "utf-8"), ("GB18030", "gb18030"), ("latin1", "iso8859-1")]
)
def test_a_form_may_say_how_it_is_written(said: str, name: str) -> None:
    assert form_charset(f"multipart/form-data; charset={said}; boundary=b") == name
    assert form_charset("multipart/form-data; boundary=b") == "utf-8"


@pytest.mark.parametrize("said", BAD_CHARSETS[:-1])
@pytest.mark.parametrize("path", TAKERS)
async def test_no_route_reads_a_form_in_such_an_encoding(door: Door, path: str, said: str) -> None:
    body = form((field(b"image", b'; filename="a"'), b"x"), (field(b"prompt"), b"a-b" * 100))
    kind = {"Content-Type": f"multipart/form-data; boundary=b; charset={said}"}
    reply = await door.http.post(path, content=body, headers=kind)
    assert reply.status_code == 400
    assert "UTF-8" in reply.text
