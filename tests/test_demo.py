"""The figures of a burst."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from forebay.demo import BurstReport, Fate, Sample, SamplesError, Shot, load_samples


def shot(fate: Fate, seconds: float, text: str = "red") -> Shot:
    return Shot(Sample(Path("a.png"), "colour?", "Red"), fate, text, seconds)


def test_failed_and_lost_requests_count_neither_as_right_nor_in_the_times() -> None:
    shots = [shot(Fate.ANSWERED, second) for second in range(1, 101)]
    shots += [shot(Fate.FAILED, 900.0), shot(Fate.LOST, 900.0), shot(Fate.ANSWERED, 101.0, "blue")]
    assert BurstReport(tuple(shots)).to_dict(12.34) == {
        "answered": 101,
        "failed": 1,
        "lost": 1,
        "right": 100,
        "of": 103,
        "p50_s": 51,
        "p99_s": 100,
        "worker_peak_mb": 12.3,
    }


@pytest.mark.parametrize("given", ["Red", " red. ", "RED"])
def test_an_answer_is_right_whatever_its_case_and_its_full_stop(given: str) -> None:
    assert shot(Fate.ANSWERED, 1, given).right


@pytest.mark.parametrize("given", ["", "reddish", "not red"])
def test_another_answer_is_wrong(given: str) -> None:
    assert not shot(Fate.ANSWERED, 1, given).right


def test_samples_are_repeated_up_to_the_burst_and_a_missing_picture_is_named(
    tmp_path: Path,
) -> None:
    row = {"file": "a.png", "question": "q", "answer": "a", "skill": "s", "language": "en"}
    (tmp_path / "samples.json").write_text(json.dumps([row]))
    with pytest.raises(SamplesError, match=r"a\.png"):
        load_samples(tmp_path)
    (tmp_path / "a.png").write_bytes(b"")
    assert len(load_samples(tmp_path, 7)) == 7
