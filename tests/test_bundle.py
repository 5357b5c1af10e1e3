"""The support bundle: made on the worst of days, bounded, and without a secret in any part."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from forebay.bundle import LOG_TAIL_BYTES, BundleError, write_bundle
from forebay.bundle_redaction import Redactor
from forebay.config import Settings, load_settings
from forebay.doctor import Finding, Verdict
from forebay.ops.alerts.silences import Silence
from forebay.ops.alerts.store import AlertStore
from forebay.ops.worker_status import Phase, WorkerStatus, write_status
from forebay.queue.connection import connect
from forebay.queue.embedded import EmbeddedValkey

OTHERWISE = ("webhook", "alert_webhook", "s3_", "queue_password")
"""Settings of secrets that want another form, or that the server of the test would want, too."""

PROMPT = "pr0mpt of a client"
PASSWORD = "p4ssw0rd-of-the-queue"
HOOK = "whsec_" + "c2VjcmV0IG9mIHRoZSB0ZXN0cyBvZiB3ZWJob29rcw=="
KEY = "fb_0a1b2c3d_Zm9yZWJheS1rZXktb2YtYS1jbGllbnQ"
FINDING = Finding("queue", Verdict.BAD, f"redis://u:{PASSWORD}@host refuses", KEY)


def parts(file: Path) -> dict[str, str]:
    with zipfile.ZipFile(file) as bundle:
        return {name: bundle.read(name).decode() for name in bundle.namelist()}


def secret_settings(folder: Path) -> tuple[Settings, list[str]]:
    """Return settings with a secret in every place that takes one, and what must not be told."""
    told: dict[str, Any] = {}
    hidden = [PASSWORD, HOOK]
    for name, field in Settings.model_fields.items():
        of_type = (field.annotation, *get_args(field.annotation))
        if SecretStr in of_type and not name.startswith(OTHERWISE):
            if f"{name}_file" in Settings.model_fields and len(told) % 2:
                file = folder / name
                file.write_text(f"f1le-of-{name}\n", encoding="ascii")
                file.chmod(0o600)
                told[f"{name}_file"] = str(file)
                hidden.append(f"f1le-of-{name}")
            else:
                told[name] = f"s3cret-of-{name}"
                hidden.append(f"s3cret-of-{name}")
    pepper = folder / "pepper"
    pepper.write_text("ab" * 32, encoding="ascii")
    pepper.chmod(0o600)
    hidden.append("ab" * 32)
    told |= {
        "webhook_secret": HOOK,
        "alert_webhook_secret": HOOK,
        "s3_access_key_id": "id",
        "s3_secret_access_key": "s3cret-of-the-bucket",
        "jwt_jwks_url": "https://u:jwks-p4ss@issuer.example/keys?token=t0ken-of-jwks",
        "key_pepper_file": str(pepper),
        "data_dir": str(folder / "data"),
        "log_file": str(folder / "logs" / "forebay.log"),
    }
    hidden += ["s3cret-of-the-bucket", "jwks-p4ss", "t0ken-of-jwks"]
    return load_settings(**told), hidden


def plant_in_logs(folder: Path, hidden: list[str]) -> None:
    (folder / "logs").mkdir()
    lines = [
        json.dumps({"event": "request", "logger": "forebay.api", "ms": 3, "prompt": PROMPT}),
        json.dumps({"event": PROMPT, "logger": "library", "level": "error"}),
        json.dumps({"event": "x", "logger": "forebay.api", "reason": f"Bearer {KEY} failed"}),
        *(json.dumps({"event": "x", "logger": "forebay", "detail": one}) for one in hidden),
        f"Traceback: {PROMPT}",
        json.dumps([PROMPT]),
    ]
    file = folder / "logs" / "forebay.api.log"
    file.write_text("\n".join(lines), encoding="utf-8")


async def plant_in_alerts(url: str) -> None:
    redis: Redis = connect(url)
    silence = Silence("s", "GpuBusy", {}, time.time() + 60, f"because of {PASSWORD}", "me", 1.0)
    await AlertStore(redis, "main").silence(silence)
    await redis.aclose()


def test_no_secret_and_no_prompt_is_in_any_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, hidden = secret_settings(tmp_path)
    plant_in_logs(tmp_path, hidden)
    monkeypatch.setenv("FOREBAY_API_KEY", hidden[-1])
    write_status(settings.run_dir, WorkerStatus("w", os.getpid(), Phase.READY, HOOK, answered=7))
    file = tmp_path / "bundle.zip"
    with EmbeddedValkey(settings.queue_dir) as server:
        asyncio.run(plant_in_alerts(server.url))
        # the password in an address, as it is set where the server is one's own
        written = settings.model_copy(
            update={"upstream_url": f"http://u:{PASSWORD}@host:1/v1", "queue_url": server.url}
        )
        write_bundle(file, written, [FINDING])
    found = parts(file)
    for name, text in found.items():
        for secret in (*hidden, PROMPT, KEY):
            assert secret not in text, (name, secret)
    shown = json.loads(found["settings.json"])["settings"]
    assert shown["webhook_secret"] == "(secret)"
    assert shown["upstream_url"] == "http://host:1/v1"
    assert shown["jwt_jwks_url"] == "https://issuer.example/keys"
    assert shown["max_waiting"] == settings.max_waiting
    lines = [json.loads(one) for one in found["logs/forebay.api.log"].splitlines()]
    assert lines[0] == {"event": "request", "logger": "forebay.api", "ms": 3}
    assert lines[-1] == {"event": "left_out", "lines": 2}
    queue = json.loads(found["queue.json"])
    assert queue["depth"]["waiting"] == 0
    assert queue["silences"][0]["reason"] == "because of (secret)"
    (worker,) = json.loads(found["workers.json"])
    assert (worker["answered"], worker["process_lives"]) == (7, True)
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_password_is_hidden_as_it_is_written_in_an_address_and_as_it_is_meant(
    tmp_path: Path,
) -> None:
    address = "http://u:p%40ss-w%2Ford@host:1/v1?token=t%3Dken-1"
    settings = load_settings(data_dir=str(tmp_path))
    redactor = Redactor(settings.model_copy(update={"upstream_url": address}))
    for told in ("p%40ss-w%2Ford", "p@ss-w/ord", "t%3Dken-1", "t=ken-1"):
        assert redactor.text(f"refused: {told}.") == "refused: (secret)."


def test_a_bundle_is_bounded_however_long_the_logs_are(tmp_path: Path) -> None:
    settings = load_settings(log_file=str(tmp_path / "f.log"), data_dir=str(tmp_path / "data"))
    line = json.dumps({"event": "request", "logger": "forebay.api", "reason": "x" * 400})
    for number in range(40):
        (tmp_path / f"f.worker-{number}.log").write_text(f"{line}\n" * 4000, encoding="utf-8")
    write_bundle(tmp_path / "bundle.zip", settings, [])
    logs = [text for name, text in parts(tmp_path / "bundle.zip").items() if "logs/" in name]
    assert len(logs) == 16
    assert max(map(len, logs)) <= LOG_TAIL_BYTES
    assert all(json.loads(one) for text in logs for one in text.splitlines())


def test_a_file_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    file = tmp_path / "bundle.zip"
    file.write_text("mine", encoding="utf-8")
    with pytest.raises(BundleError, match="there already"):
        write_bundle(file, load_settings(data_dir=str(tmp_path)), [])
    assert file.read_text(encoding="utf-8") == "mine"
    with pytest.raises(BundleError, match="cannot be written"):
        write_bundle(tmp_path / "no" / "b.zip", load_settings(data_dir=str(tmp_path)), [])


def test_the_command_makes_one_with_the_stack_down(tmp_path: Path) -> None:
    file = tmp_path / "b.zip"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "forebay", "doctor", "--json", "--bundle", str(file)),
            *("--data-dir", str(tmp_path / "data"), "--port", "1"),
        ],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert [one["check"] for one in json.loads(done.stdout)]
    found = parts(file)
    assert set(found) == {
        "README.txt", "doctor.json", "settings.json", "versions.json", "machine.json",
        "workers.json", "queue.json", "metrics.txt", "logs/none.txt",
    }  # fmt: skip
    assert "QueueNotRunningError" in json.loads(found["queue.json"])["missing"]
    assert "missing" in json.loads(found["metrics.txt"])
    assert json.loads(found["versions.json"])["packages"]["redis"]
    assert "GiB free" in found["doctor.json"]
