"""The decoder process: takes untrusted bytes on standard input, returns a normalised picture.

It is a process so that it can be killed, and so that a broken codec takes nothing else with it.
Started by ``forebay.admission.pool``; it ends with its standard input, so it never outlives the
door.
"""

from __future__ import annotations

import json
import resource
import sys
from typing import Any, BinaryIO

from PIL import UnidentifiedImageError

from forebay.admission.decode import normalise
from forebay.admission.header import PictureFormat, PictureHeader
from forebay.admission.wire import LENGTHS, READY, pack, unpack_lengths


def main() -> None:
    """Serve jobs until standard input ends."""
    _limit_process(memory_bytes=int(sys.argv[1]))
    jobs, replies = sys.stdin.buffer, sys.stdout.buffer
    replies.write(READY)
    replies.flush()
    while lengths := jobs.read(LENGTHS.size):
        _serve_one(lengths, jobs, replies)


def _serve_one(lengths: bytes, jobs: BinaryIO, replies: BinaryIO) -> None:
    head_bytes, body_bytes = unpack_lengths(lengths)
    job = json.loads(jobs.read(head_bytes))
    replies.writelines(_answer(job, jobs.read(body_bytes)))
    replies.flush()


def _answer(job: dict[str, Any], content: bytes) -> list[bytes]:
    header = PictureHeader(PictureFormat(job["format"]), job["width"], job["height"])
    try:
        picture, width, height = normalise(content, header, job["side"], job["quality"])
    except MemoryError:
        return pack({"error": "the picture takes too much memory to decode"})
    except UnidentifiedImageError:  # its own words are about an object of ours
        return pack({"error": f"the {header.format} picture cannot be decoded: it is damaged"})
    except Exception as error:  # noqa: BLE001 - hostile bytes may raise anything in a codec
        return pack({"error": f"the {header.format} picture cannot be decoded: {error}"[:500]})
    return pack({"width": width, "height": height}, picture)


def _limit_process(memory_bytes: int) -> None:
    limits = [(resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0)]
    if sys.platform == "linux":  # macOS takes RLIMIT_AS for a mistake
        limits.append((resource.RLIMIT_AS, memory_bytes))
    for which, most in limits:
        resource.setrlimit(which, (most, most))


if __name__ == "__main__":
    main()
