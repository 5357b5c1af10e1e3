"""An answer's body, counted as it comes: as sent, and as decompressed."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterable
from typing import Final

from forebay.outbound.errors import BrokenAnswerError, TooLargeError

_GZIP_OR_ZLIB: Final = zlib.MAX_WBITS | 32


async def read_body(chunks: AsyncIterable[bytes], encoding: str, most_bytes: int) -> bytes:
    """Return the whole body, decompressed.

    ``encoding``: of the answer's ``Content-Encoding``. None is asked for; some servers send one all
    the same. Raises TooLargeError as soon as ``most_bytes`` are passed, BrokenAnswerError for an
    encoding that cannot be undone.
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return await _as_sent(chunks, most_bytes)
    if name in ("gzip", "x-gzip", "deflate"):
        return await _inflated(chunks, most_bytes)
    raise BrokenAnswerError("The answer is compressed in a way that was not asked for.")


async def _as_sent(chunks: AsyncIterable[bytes], most_bytes: int) -> bytes:
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > most_bytes:
            raise _too_large(most_bytes)
    return bytes(body)


async def _inflated(chunks: AsyncIterable[bytes], most_bytes: int) -> bytes:
    inflate = zlib.decompressobj(_GZIP_OR_ZLIB)
    body, sent = bytearray(), 0
    async for chunk in chunks:
        sent += len(chunk)
        try:
            # one byte more than may come says that too much does; a bomb is never unpacked whole
            body += inflate.decompress(chunk, most_bytes + 1 - len(body))
        except zlib.error as error:
            raise BrokenAnswerError("The answer's compression is broken.") from error
        if max(len(body), sent) > most_bytes:
            raise _too_large(most_bytes)
    if not inflate.eof:
        raise BrokenAnswerError("The answer's compression is broken.")
    return bytes(body)


def _too_large(most_bytes: int) -> TooLargeError:
    return TooLargeError(f"The answer is larger than {most_bytes} bytes.")
