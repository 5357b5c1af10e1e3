"""What the queue's user must be allowed in the server: no more than the library and we send."""

from __future__ import annotations

import re
from functools import cache
from typing import Final

from forebay.queue.address import Form
from forebay.queue.functions import library_source

OURS: Final = (
    "fcall", "fcall_ro", "function|load", "info", "ping", "hget", "hset", "hincrby", "xadd",
    "xread", "xrange", "xrevrange", "zrange", "pexpire", "lrange", "client|setinfo", "select",
    "set", "get", "del", "mget", "expire", "hgetall", "zadd", "zrem", "zcard", "zrevrange",
    "zrevrank",
)  # fmt: skip
"""Commands that Python sends itself, in any form of server."""

OF_FORM: Final = {
    Form.SINGLE: (),
    Form.SENTINEL: ("role",),
    Form.CLUSTER: ("cluster|slots",),
}
PLACEHOLDER_USER: Final = "forebay"


@cache
def commands(form: Form = Form.SINGLE) -> tuple[str, ...]:
    """Return the commands that the user needs, in order: ours, and the library's as it is."""
    _, source = library_source()
    called = {one.lower() for one in re.findall(r"redis\.p?call\(\s*'([A-Za-z]+)'", source)}
    return tuple(sorted({*called, *OURS, *OF_FORM[form]}))


def acl_command(queue: str, user: str | None = None, form: Form = Form.SINGLE) -> str:
    """Return the command that gives a user what the queue ``queue`` needs, and nothing else."""
    rights = " ".join(f"+{one}" for one in commands(form))
    # Keys of one partition or of several: {fb:main}:… and {fb:main:0}:…
    keys = f"'~{{fb:{queue}}}:*' '~{{fb:{queue}:*}}:*'"
    return f"ACL SETUSER {user or PLACEHOLDER_USER} on {keys} resetchannels -@all {rights}"
