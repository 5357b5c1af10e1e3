"""The decoder process: takes untrusted bytes on standard input, returns a normalised picture.

It is a process so that it can be killed, and so that a broken codec takes nothing else with it.
Started by ``forebay.admission.pool``; it ends with its standard input, so it never outlives the
door. Base64 is decoded here too, away from the event loop.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import resource
import sys
from pathlib import Path
from typing import Any, BinaryIO

from PIL import UnidentifiedImageError

from forebay.admission.content import decode_base64
from forebay.admission.decode import import_codecs, normalise
from forebay.admission.header import PictureFormat, PictureHeader
from forebay.admission.wire import LENGTHS, READY, pack, unpack_lengths
from forebay.core.errors import InvalidImageError

_PIPE_BYTES = 2**20
"""As much as the system gives to anyone."""


def main() -> None:
    """Serve jobs until standard input ends."""
    memory_bytes, cpu_s = int(sys.argv[1]), int(sys.argv[2])
    _limit_process(memory_bytes)
    import_codecs()
    jobs, replies = sys.stdin.buffer, sys.stdout.buffer
    _widen(jobs, replies)
    replies.write(READY)
    replies.flush()
    while lengths := jobs.read(LENGTHS.size):
        _limit_job(cpu_s)
        _serve_one(lengths, jobs, replies)


def _serve_one(lengths: bytes, jobs: BinaryIO, replies: BinaryIO) -> None:
    head_bytes, body_bytes = unpack_lengths(lengths)
    job = json.loads(jobs.read(head_bytes))
    replies.writelines(_answer(job, jobs.read(body_bytes)))
    replies.flush()


def _answer(job: dict[str, Any], content: bytes) -> list[bytes]:
    header = PictureHeader(PictureFormat(job["format"]), job["width"], job["height"])
    try:
        if job["base64"]:
            content = decode_base64(content)
        picture, width, height = normalise(content, header, job["side"], job["quality"])
    except MemoryError:
        return pack({"error": "the picture takes too much memory to decode"})
    except InvalidImageError as error:
        return pack({"error": error.message})
    except UnidentifiedImageError:  # its own words are about an object of ours
        return pack({"error": f"the {header.format} picture cannot be decoded: it is damaged"})
    except Exception as error:  # noqa: BLE001 - hostile bytes may raise anything in a codec
        return pack({"error": f"the {header.format} picture cannot be decoded: {error}"[:500]})
    return pack({"width": width, "height": height}, picture)


def _widen(*ends: BinaryIO) -> None:
    """Let a whole picture be on its way at once: else both sides wait for each other, piecewise."""
    if sys.platform == "linux":
        for end in ends:
            with contextlib.suppress(OSError):  # no pipe, or as much as this user may have
                fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def _limit_process(memory_bytes: int) -> None:
    # where the machine's memory runs out, a picture is a smaller loss than the model
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    limits = [(resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0)]
    if sys.platform == "linux":  # macOS takes RLIMIT_AS for a mistake
        limits.append((resource.RLIMIT_AS, memory_bytes))
    for which, most in limits:
        resource.setrlimit(which, (most, most))


def _limit_job(cpu_s: int) -> None:
    """Let the system end this process after ``cpu_s`` more seconds of work, whoever watches."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime) + 1 + cpu_s  # the system counts whole seconds
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    if hard != resource.RLIM_INFINITY:
        soft = min(soft, hard)
    resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


if __name__ == "__main__":
    main()
