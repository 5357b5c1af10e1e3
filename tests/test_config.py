"""Settings: which source wins, and what stops the start."""

from __future__ import annotations

from pathlib import Path

import pytest

from forebay.config import SettingsError, load_settings


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert load_settings().port == 8080
    (tmp_path / "forebay.toml").write_text("port = 1001\nworkers = 3\nmax_images = 5")
    assert load_settings().port == 1001
    monkeypatch.setenv("FOREBAY_PORT", "1002")
    monkeypatch.setenv("FOREBAY_WORKERS", "4")
    assert load_settings().port == 1002
    settings = load_settings(port=1003, workers=None)
    assert (settings.port, settings.workers, settings.max_images) == (1003, 4, 5)


def test_an_unknown_key_of_each_source_is_refused_with_the_nearest_known_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match="prot: no such setting; did you mean port"):
        load_settings(prot=1)
    file = tmp_path / "other.toml"
    file.write_text("lease = 3")
    monkeypatch.setenv("FOREBAY_CONFIG", str(file))
    with pytest.raises(SettingsError, match="lease: no such setting; did you mean lease_s"):
        load_settings()
    monkeypatch.setenv("FOREBAY_DATADIR", "x")
    with pytest.raises(SettingsError, match="did you mean FOREBAY_DATA_DIR"):
        load_settings()


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ({"port": 0}, "FOREBAY_PORT"),
        ({"lease_s": "soon"}, "FOREBAY_LEASE_S"),
        ({"log_level": "loud"}, "FOREBAY_LOG_LEVEL"),
        ({"queue_name": "a}b"}, "FOREBAY_QUEUE_NAME"),
    ],
)
def test_a_bad_value_is_refused_by_its_keys_name(flags: dict[str, object], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        load_settings(**flags)


def test_a_configuration_file_that_is_missing_or_broken_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FOREBAY_CONFIG", "nowhere.toml")
    with pytest.raises(SettingsError, match=r"nowhere\.toml"):
        load_settings()
    (tmp_path / "nowhere.toml").write_text("port = = 1")
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings()


def test_a_child_reads_the_same_settings_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = load_settings(
        data_dir=tmp_path / "数据 库", queue_url="unix:///a/b", model_aliases="a, b", drain_s=2.5
    )
    for name, value in settings.to_environment().items():
        monkeypatch.setenv(name, value)
    assert load_settings() == settings
