from __future__ import annotations

from pathlib import Path

from forebay.ops.worker_status import (
    Phase,
    WorkerStatus,
    peak_memory_bytes,
    read_status,
    status_path,
    write_status,
)


def test_a_status_is_read_as_it_was_written_and_a_damaged_one_is_none(tmp_path: Path) -> None:
    status = WorkerStatus("w", 7, Phase.READY, "模型", held=2, answered=5, peak_bytes=9)
    assert read_status(tmp_path, "w") is None
    write_status(tmp_path, status)
    assert read_status(tmp_path, "w") == status
    assert [path.name for path in tmp_path.iterdir()] == [status_path(tmp_path, "w").name]
    status_path(tmp_path, "w").write_text('{"name": "w"')
    assert read_status(tmp_path, "w") is None


def test_the_peak_counts_memory_that_was_given_back() -> None:
    before = peak_memory_bytes()
    size = before + 50 * 2**20
    bytearray(size)[::4096] = b"x" * len(range(0, size, 4096))
    assert peak_memory_bytes() >= size
