"""Start and stop of the whole tree: clear words, order, and no process left."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.integration.stack import ServeProcess, free_port, serving


def test_a_taken_port_gives_way_to_the_next_and_ctrl_c_leaves_no_process(
    model: Path, tmp_path: Path
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        stack = ServeProcess(model, tmp_path, "--port", str(port))
        try:
            assert stack.url != f"http://127.0.0.1:{port}"
            used = stack.url.rsplit(":", 1)[1]
            assert f"port {port} is taken: using {used}" in stack.output()
            assert len(stack.tree) >= 4  # supervisor, queue server, API, worker
            assert stack.stop(signal.SIGINT) == 0
            assert stack.living() == []
            said = [line.split("s  ")[1] for line in stack.output().splitlines() if " s  " in line]
            assert said[-3:] == ["door closed", "workers stopped", "queue stopped"]
            with pytest.raises(httpx.ConnectError):
                httpx.get(f"{stack.url}/healthz", trust_env=False)
        finally:
            stack.clean_up()


def test_accepted_tasks_outlive_a_drain_and_then_a_killed_supervisor(
    model: Path, tmp_path: Path
) -> None:
    more = ("--set", "max_tokens_default=250", "--set", "drain_s=1")
    with serving(model, tmp_path, *more) as stack:
        drained = stack.submit(40)
        assert stack.stop(signal.SIGTERM) == 0
        assert stack.living() == []
    with serving(model, tmp_path, *more) as stack:
        stack.await_answers(drained)
        orphaned = stack.submit(40, "what is left")  # of its own: not the drained ones' answers
        queue_server = stack.queue_server()
        stack.stop(signal.SIGKILL)
        stack.until(lambda: set(stack.living()) <= {queue_server}, "end of the orphans")
    with serving(model, tmp_path, *more) as stack:
        stack.await_answers([*drained, *orphaned])


def test_a_data_folder_in_use_is_refused_with_the_mend(model: Path, tmp_path: Path) -> None:
    with serving(model, tmp_path) as stack:
        second = subprocess.run(
            [
                *(sys.executable, "-m", "forebay", "serve", "--model", str(model)),
                *("--data-dir", str(tmp_path), "--port", str(free_port())),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert second.returncode == 1
        assert f"in use by another Forebay (process {stack.process.pid})" in second.stderr
        assert "Traceback" not in second.stderr
