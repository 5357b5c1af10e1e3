from __future__ import annotations

import base64
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from forebay.outbound.signing import read_secrets, sign

SECRETS = st.binary(min_size=24, max_size=64)


def written(secret: bytes) -> str:
    return "whsec_" + base64.b64encode(secret).decode()


@given(st.lists(SECRETS, min_size=1, max_size=3), st.from_regex(r"[a-z0-9-]{1,40}", fullmatch=True),
       st.text(st.characters(exclude_categories=["Cs"])))  # fmt: skip
def test_the_reference_implementation_verifies_with_each_secret(
    secrets: list[bytes], message_id: str, text: str
) -> None:
    now, body = int(time.time()), text.encode()
    headers = {
        "webhook-id": message_id,
        "webhook-timestamp": str(now),
        "webhook-signature": sign(secrets, message_id, now, body),
    }
    for secret in secrets:
        Webhook(written(secret)).verify(body, headers, json_parse=False)
    for wrong in (
        {"webhook-id": message_id + "x"},
        {"webhook-timestamp": str(now - 1)},
        {"webhook-signature": sign([b"another secret" * 3], message_id, now, body)},
    ):
        with pytest.raises(WebhookVerificationError):
            Webhook(written(secrets[0])).verify(body, headers | wrong, json_parse=False)
    with pytest.raises(WebhookVerificationError):
        Webhook(written(secrets[0])).verify(body + b" ", headers, json_parse=False)


@given(st.lists(SECRETS, max_size=3))
def test_secrets_are_read_as_they_are_written(secrets: list[bytes]) -> None:
    assert read_secrets(",".join(map(written, secrets))) == tuple(secrets)
    assert read_secrets("\n".join(map(written, secrets)) + "\n") == tuple(secrets)
    assert read_secrets(" ".join(written(one).rstrip("=") for one in secrets)) == tuple(secrets)


@pytest.mark.parametrize(
    "word",
    ["plain-password", written(b"x" * 23), written(b"x" * 65), "whsec_", "whsec_***",
     base64.b64encode(b"x" * 32).decode()],
)  # fmt: skip
def test_what_is_no_secret_is_refused_and_not_repeated(word: str) -> None:
    good = written(b"y" * 32)
    with pytest.raises(ValueError, match=r"secret 2 must be whsec_") as error:
        read_secrets(f"{good} {word}")
    assert not re.search(re.escape(word) + r"\b", str(error.value).replace("whsec_ ", ""))
