"""Workers that are well are replaced by fresh ones, and nobody's request is lost by it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from forebay.ops.worker_status import Phase, WorkerStatus, read_status
from forebay.queue.ports import StreamKind
from tests.integration.stack import ServeProcess, serving
from tests.integration.test_nothing_is_lost import ends

BURST = 16
EAGER = ("--set", "recycle_settle_s=1", "--set", "max_tokens_default=60")


def replaced(stack: ServeProcess) -> dict[str, int]:
    shown = stack.client.get("/metrics").text
    found = re.findall(r'forebay_worker_replaced_total\{reason="(\w+)"\} (\d+)', shown)
    return {reason: int(count) for reason, count in found}


def statuses(stack: ServeProcess) -> list[WorkerStatus]:
    folder = stack.data_dir / "run"
    names = [file.name.removesuffix(".status.json") for file in folder.glob("*.status.json")]
    found = [read_status(folder, name) for name in names]
    return [one for one in found if one is not None and one.phase is Phase.READY]


def audited(stack: ServeProcess) -> str:
    """Return the audit as an administrator reads it."""
    made = subprocess.run(
        [
            *(sys.executable, "-m", "forebay", "keys", "create", "t", "--scope", "admin"),
            *("--data-dir", str(stack.data_dir)),
        ],
        capture_output=True, text=True, check=True, env=dict(os.environ), timeout=60,
    )  # fmt: skip
    key = re.search(r"\bfb[-_]\S+", made.stdout)
    assert key is not None, made.stdout
    reply = stack.client.get("/v1/admin/audit", headers={"Authorization": f"Bearer {key[0]}"})
    return reply.text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overlap", "cause"), [("always", "recycle_tasks=6"), ("never", "recycle_memory_bytes=1048576")]
)
def test_a_burst_while_its_worker_is_replaced_again_and_again(
    model: Path, tmp_path: Path, overlap: str, cause: str
) -> None:
    more = (*EAGER, "--set", f"recycle_overlap={overlap}", "--set", cause)
    reason = cause.removeprefix("recycle_").partition("=")[0].partition("_")[0]
    with serving(model, tmp_path, *more) as stack:
        first = stack.until(lambda: stack.pid_of("worker"), "worker")
        task_ids = stack.submit(BURST, f"recycled {overlap}")
        # in steps, for each of them may take long on a machine that has much to do
        stack.until(lambda: '"recycling"' in stack.output(), "begin of a replacement")
        stack.until(lambda: stack.output().count('"model_warm"') >= 2, "fresh worker")
        stack.until(lambda: replaced(stack).get(reason, 0) >= 1, "replacement")
        task_ids += stack.submit(BURST, f"recycled {overlap} again")
        stack.await_answers(task_ids)
        assert ends(stack, task_ids) == {StreamKind.DONE: 2 * BURST}
        assert set(replaced(stack)) == {reason}
        stack.until(lambda: [one for one in statuses(stack) if one.pid != first], "a ready worker")
        assert '"worker.recycle"' in audited(stack)
