"""The API process, as the supervisor starts it: settings in, a socket inherited, an ordered end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from forebay.config import Settings
from forebay.queue.embedded import EmbeddedValkey
from tests.api.door import eventually

CODE = "from forebay.config import load_settings; from forebay.api.serve import run; import sys; "
CODE += "run(load_settings(), listen_fds=[int(fd) for fd in sys.argv[1:]])"


def write_model(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": 4096}))
    (folder / "preprocessor_config.json").write_text("{}")
    return folder


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "room"),
    [(300, 1000, 500, 500), (300, 1000, 8000, 744), (300, 300, 8000, 44), (900, 1000, 10, 10)],
)
def test_connections_are_bounded_by_the_files_that_may_be_open(soft, hard, wanted, room):
    code = (
        "import resource, sys; from forebay.api.serve import room_for;"
        "soft, hard, wanted = map(int, sys.argv[1:]);"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard)); print(room_for(wanted),"
        " resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )
    arguments = [sys.executable, "-c", code, str(soft), str(hard), str(wanted)]
    shown = subprocess.run(arguments, capture_output=True, check=True, text=True).stdout
    found, limit = map(int, shown.split())
    assert found == room
    assert soft <= limit <= hard


async def test_the_process_serves_an_inherited_socket_and_ends_on_sigterm(
    valkey: EmbeddedValkey, tmp_path: Path
):
    settings = Settings(
        model=str(write_model(tmp_path / "model")),
        model_name="served",
        queue_url=valkey.url,
        data_dir=tmp_path / "data",
        drain_s=2,
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", CODE, str(listener.fileno())),
            env={**os.environ, **settings.to_environment(), "FOREBAY_CONFIG": ""},
            pass_fds=(listener.fileno(),),
            cwd=tmp_path,
        )
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as http:
            names = (await http.get("/v1/models")).json()["data"]
            assert names[0]["id"] == "served"
            assert names[0]["max_model_len"] == 4096
            assert (await http.get("/ready")).json()["code"] == "not_ready"
        process.send_signal(signal.SIGTERM)
        await eventually(lambda: process.returncode is not None)
        assert process.returncode in (0, -signal.SIGTERM)
