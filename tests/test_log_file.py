"""Logs in files: turned over, bounded, whole, and of one process each."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from forebay.config import SettingsError, load_settings
from forebay.log_file import LogFile, LogFileError, LogFileTerms
from forebay.logs import configure_logs, set_level

SECRET = "what was asked"


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root, hangup = logging.getLogger(), signal.getsignal(signal.SIGHUP)
    handlers, level = root.handlers[:], root.level
    yield
    for one in root.handlers:
        if isinstance(one, LogFile):
            one.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("forebay").setLevel(logging.NOTSET)
    structlog.reset_defaults()
    signal.signal(signal.SIGHUP, hangup)


def terms(folder: Path, most_bytes: int = 0, every_s: float = 0, keep: int = 3) -> LogFileTerms:
    return LogFileTerms(folder / "forebay.log", most_bytes, every_s, keep)


def tell(count: int, first: int = 0) -> None:
    for number in range(first, first + count):
        structlog.get_logger("forebay.test").info("told", tokens=number)


def told(*files: Path) -> list[int]:
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    return [one["tokens"] for one in map(json.loads, lines) if one["event"] == "told"]


def test_a_process_writes_json_into_a_file_of_its_own(tmp_path: Path) -> None:
    configure_logs("api", file=terms(tmp_path / "logs"))
    tell(2)
    file = tmp_path / "logs" / "forebay.api.log"
    assert told(file) == [0, 1]
    assert terms(tmp_path / "logs").files() == [file]
    assert not file.stat().st_mode & 0o007, "others may not read it"


def test_files_are_turned_over_by_size_and_a_bounded_number_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "forebay.api.log"
    left = tmp_path / "forebay.api.log.9"
    left.write_text("of when more were kept", encoding="utf-8")
    configure_logs("api", file=terms(tmp_path, most_bytes=1000))
    tell(60)
    older = [Path(f"{file}.{number}") for number in (3, 2, 1)]
    assert sorted(tmp_path.glob("forebay.api.log*")) == sorted([file, *older])
    kept = told(*older, file)
    assert kept == list(range(kept[0], 60)), "in order, none lost between two files"
    assert all(one.stat().st_size < 1500 for one in [file, *older])


def test_a_file_of_an_earlier_stretch_of_time_is_turned_over(tmp_path: Path) -> None:
    file = tmp_path / "forebay.api.log"
    file.write_text('{"event": "told", "tokens": -1}\n', encoding="utf-8")
    day_before_s = time.time() - 2 * 86_400
    os.utime(file, (day_before_s, day_before_s))
    configure_logs("api", file=terms(tmp_path, every_s=86_400))
    tell(2)
    assert told(Path(f"{file}.1")) == [-1]
    assert told(file) == [0, 1]


def test_a_file_that_another_program_renames_is_left_to_it(tmp_path: Path) -> None:
    configure_logs("api", file=terms(tmp_path))
    file, moved = tmp_path / "forebay.api.log", tmp_path / "moved"
    tell(1)
    file.rename(moved)
    tell(1, first=1)
    assert (told(moved), told(file)) == ([0], [1])


def test_a_hangup_opens_the_file_anew(tmp_path: Path) -> None:
    configure_logs("api", file=terms(tmp_path))
    tell(1)
    (own,) = [one for one in logging.getLogger().handlers if isinstance(one, LogFile)]
    before = own._stream
    os.kill(os.getpid(), signal.SIGHUP)
    tell(1, first=1)
    assert own._stream is not before
    assert told(tmp_path / "forebay.api.log") == [0, 1]


WRITER = """
import sys, structlog
from pathlib import Path
from forebay.log_file import LogFileTerms
from forebay.logs import configure_logs
configure_logs("api", file=LogFileTerms(Path(sys.argv[1]) / "forebay.log", 4000, 0, 200))
print("open", flush=True)
sys.stdin.readline()
for number in range(500):
    structlog.get_logger("forebay.test").info("told", tokens=number)
"""


def test_processes_of_one_name_do_not_write_over_each_other(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    pipe = subprocess.PIPE
    writers = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(3)]
    for one in writers:
        assert one.stdout is not None
        assert one.stdout.readline() == "open\n"
    for one in writers:
        one.communicate("go\n", timeout=60)
    for number in (1, 2, 3):
        own = terms(tmp_path).file_of("api", number)
        assert sorted(told(*tmp_path.glob(f"{own.name}*"))) == list(range(500))


def test_a_full_disk_costs_lines_is_told_and_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logs("api", file=terms(tmp_path))
    (own,) = [one for one in logging.getLogger().handlers if isinstance(one, LogFile)]
    own._shut()
    own.path.unlink()
    own.path.symlink_to("/dev/full")
    structlog.get_logger("forebay.test").info("told", tokens=0, prompt=SECRET)
    tell(3)
    own.path.unlink()
    tell(1, first=9)
    shown = capsys.readouterr()
    assert shown.err.count("the log cannot be written") == 1
    assert SECRET not in shown.err + shown.out
    lines = [json.loads(line) for line in own.path.read_text(encoding="utf-8").splitlines()]
    assert [(one["event"], one.get("lines")) for one in lines] == [
        ("log_lines_lost", 4),
        ("told", None),
    ]


def test_a_line_that_was_cut_off_spoils_only_itself(tmp_path: Path) -> None:
    file = tmp_path / "forebay.api.log"
    file.write_text('{"event": "tol', encoding="utf-8")
    configure_logs("api", file=terms(tmp_path))
    tell(1)
    assert json.loads(file.read_text(encoding="utf-8").splitlines()[1])["tokens"] == 0


def test_a_place_where_no_log_can_be_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LogFileError, match=r"log_file: .*file"):
        configure_logs("api", file=terms(tmp_path / "file"))
    with pytest.raises(SettingsError, match=r"log_file .*folder"):
        load_settings(log_file=str(tmp_path))


def test_the_level_opens_our_own_lines_and_not_those_of_libraries(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logs("api", form="json", level="warning")
    ours, theirs = structlog.get_logger("forebay.test"), logging.getLogger("library")
    ours.info("quiet")
    set_level("debug")
    ours.debug("loud")
    theirs.debug(SECRET)
    theirs.info("theirs")
    set_level("error")
    ours.warning("quiet")
    theirs.warning("quiet")
    lines = [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()]
    assert lines == ["loud", "theirs"]
