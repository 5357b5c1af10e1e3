"""Where pictures are kept, as one setting says: a folder, the queue's server, or a bucket."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from forebay.queue.blobs import MAX_BYTES
from forebay.queue.blobs_s3 import Bucket

REDIS: Final = "redis"
_S3: Final = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/([^?#]*))?")


@dataclass(frozen=True, slots=True)
class BlobAddress:
    """A folder, or a bucket, or neither: the queue's own server."""

    folder: Path | None = None
    bucket: Bucket | None = None
    max_bytes: int = MAX_BYTES


def parse_blob_address(text: str) -> BlobAddress:
    """Read the setting. Raises ValueError that says which forms there are."""
    if text == REDIS:
        return BlobAddress()
    if text.startswith("s3:"):
        match = _S3.fullmatch(text)
        if match is None:
            raise ValueError("a bucket is s3://BUCKET or s3://BUCKET/PREFIX, in small letters")
        return BlobAddress(bucket=Bucket(match[1], (match[2] or "").strip("/")))
    if "://" in text or not text:
        raise ValueError("must be a folder, `redis`, or s3://BUCKET/PREFIX")
    return BlobAddress(folder=Path(text).expanduser().absolute())
