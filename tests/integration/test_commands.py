"""The commands as a user types them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.stack import free_port, serving

SAMPLES = Path(__file__).parents[2] / "forebay" / "samples"


def forebay(*arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "forebay", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def test_the_demo_answers_its_burst_whatever_the_model_knows(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    done = forebay(
        *("demo", "--once", "--model", str(model), "--port", str(free_port())),
        *("--count", "12", "--json", str(file), "--set", "max_tokens_default=5"),
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(file.read_text())
    assert (figures["answered"], figures["failed"], figures["lost"]) == (12, 0, 0)
    assert figures["of"] == 12
    assert 0 < figures["p50_s"] <= figures["p99_s"]
    assert figures["worker_peak_mb"] > 50
    for word in ("queue ready", "door open", "model warm", "answered", "queue stopped"):
        assert word in done.stdout


def test_ask_prints_the_answer_of_a_running_server_and_its_refusals(
    model: Path, tmp_path: Path
) -> None:
    picture = tmp_path / "note.txt"
    picture.write_text("not a picture")
    sample = str(min(SAMPLES.glob("*.jpg")))
    with serving(model, tmp_path / "data") as stack:
        done = forebay("ask", "--url", stack.url, "--max-tokens", "60", sample, "what is it")
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()
        refused = forebay("ask", "--url", stack.url, str(picture), "what is it")
        assert refused.returncode == 1
        assert refused.stderr.startswith("forebay: 4")
        assert "Traceback" not in refused.stderr


def test_the_doctor_names_what_is_wrong_with_its_mend(tmp_path: Path) -> None:
    done = forebay("doctor", "--json", "--model", str(tmp_path), "--data-dir", str(tmp_path))
    assert done.returncode == 1
    findings = {one["check"]: one for one in json.loads(done.stdout)}
    assert set(findings) == {
        "python",
        "memory",
        "disk",
        "nvidia",
        "port",
        "queue",
        "access",
        "model",
    }
    assert findings["model"]["verdict"] == "bad"
    assert findings["model"]["mend"]
    assert findings["python"]["verdict"] == "good"
    assert findings["queue"]["verdict"] == "good"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("serve", "--model", "/nowhere"), "/nowhere lacks config.json"),
        (("serve", "--set", "prot=1"), "did you mean port?"),
        (("worker",), "queue_url is not set"),
        (("api",), "queue_url is not set"),
        (("ask", "--url", "http://127.0.0.1:9", "x"), "http://127.0.0.1:9: ConnectError"),
    ],
)
def test_a_mistake_is_told_in_a_line(arguments: tuple[str, ...], told: str) -> None:
    done = forebay(*arguments)
    assert done.returncode == 1
    assert told in done.stderr
    assert "Traceback" not in done.stderr
