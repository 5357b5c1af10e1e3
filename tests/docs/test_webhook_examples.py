"""The examples of docs/webhooks.md verify what is really sent, and nothing else."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from forebay.outbound.signing import read_secrets, sign

PAGE = Path(__file__).resolve().parents[2] / "docs" / "webhooks.md"
SECRET = "whsec_" + "c2VjcmV0IG9mIHRoZSB0ZXN0cyBvZiB3ZWJob29rcw=="
OTHER = "whsec_" + "dGhlIHNlY3JldCB0aGF0IGhhcyBiZWVuIHJlcGxhY2Vk"
BODY = '{"id":"a","text":"答案"}'.encode()

Verify = Callable[[str, dict[str, str], bytes], bool]


def example(language: str) -> str:
    flags = re.MULTILINE | re.DOTALL
    found = re.search(rf"^```{language}\n(.*?)^```", PAGE.read_text("utf-8"), flags)
    assert found is not None
    return found[1]


def in_python(secret: str, headers: dict[str, str], body: bytes) -> bool:
    scope: dict[str, Any] = {}
    exec(example("python"), scope)
    return scope["verify"](secret, headers, body)


def in_javascript(secret: str, headers: dict[str, str], body: bytes) -> bool:
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs node")
    told = json.dumps([secret, headers, body.decode()])
    call = f"const [s, h, b] = {told};\nconsole.log(verify(s, h, Buffer.from(b)));\n"
    command = [node, "--input-type=module", "-"]
    script = example("js") + call
    run = subprocess.run(command, check=True, input=script, text=True, capture_output=True)
    return json.loads(run.stdout)


@pytest.mark.parametrize("verify", [in_python, in_javascript])
def test_the_example_verifies_what_is_sent_and_nothing_else(verify: Verify) -> None:
    now = int(time.time())

    def headers(timestamp: int, *secrets: str) -> dict[str, str]:
        signature = sign(read_secrets(" ".join(secrets)), "a-finished", timestamp, BODY)
        return {
            "webhook-id": "a-finished",
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature,
        }

    assert verify(SECRET, headers(now, SECRET), BODY)
    assert verify(SECRET, headers(now, OTHER, SECRET), BODY)
    assert not verify(SECRET, headers(now, OTHER), BODY)
    assert not verify(SECRET, headers(now, SECRET), BODY + b" ")
    assert not verify(SECRET, headers(now, SECRET) | {"webhook-id": "b-finished"}, BODY)
    assert not verify(SECRET, headers(now - 301, SECRET), BODY)
    assert not verify(SECRET, headers(now, SECRET) | {"webhook-timestamp": str(now + 1)}, BODY)
