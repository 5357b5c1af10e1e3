"""How the texts of a form are written: in one of a few encodings, for its client says which."""

from __future__ import annotations

import codecs
import re
from typing import Final

from python_multipart.multipart import parse_options_header

from forebay.core.errors import InvalidRequestError

_NAME: Final = re.compile(r"[A-Za-z0-9_.:-]{1,40}")
_READ: Final = frozenset(
    {"ascii", "utf-8", "iso8859-1", "iso8859-15", "cp1252", "gb2312", "gbk", "gb18030", "big5"}
    | {"shift_jis", "cp932", "euc_jp", "euc_kr"}
)
"""Python knows many more: some encode no texts, and ``punycode`` takes seconds for a megabyte."""


def form_charset(content_type: str) -> str:
    """Return a multipart form's encoding by Python's name; UTF-8 where it says none.

    Raises:
        InvalidRequestError: it says one that is not read here.
    """
    said = parse_options_header(content_type)[1].get(b"charset", b"utf-8").decode("latin-1")
    try:
        name = codecs.lookup(said).name if _NAME.fullmatch(said) else ""
    except LookupError:
        name = ""
    if name not in _READ:
        raise InvalidRequestError(
            f"the form's charset {said[:40]!r} is not read here; write it in UTF-8",
            param="Content-Type",
        )
    return name
