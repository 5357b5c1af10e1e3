"""Settings: which source wins, and what stops the start."""

from __future__ import annotations

from pathlib import Path

import pytest

from forebay.api.from_settings import model_profile
from forebay.config import SettingsError, load_settings
from forebay.core.image_grid import GridRules


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
        ({"blob_store": "s3://"}, "FOREBAY_BLOB_STORE"),
        ({"blob_store": "s3://Capital/x"}, "FOREBAY_BLOB_STORE"),
        ({"blob_store": "gs://bucket"}, "FOREBAY_BLOB_STORE"),
        ({"s3_endpoint": "nonsense"}, "FOREBAY_S3_ENDPOINT"),
        ({"s3_access_key_id": "alone"}, "s3_secret_access_key"),
        ({"blob_ttl_s": 5}, "FOREBAY_BLOB_TTL_S"),
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


def test_an_upstreams_key_reaches_a_child_and_is_shown_to_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = load_settings(upstream_url="http://a:1/v1/", upstream_api_key="sk-secret-1")
    assert "sk-secret-1" not in repr(settings)
    for name, value in settings.to_environment().items():
        monkeypatch.setenv(name, value)
    again = load_settings()
    assert again == settings
    assert again.upstream_api_key is not None
    assert again.upstream_api_key.get_secret_value() == "sk-secret-1"
    assert again.upstream_url == "http://a:1/v1"


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({"upstream_url": "vllm:8000"}, "must be of the form http"),
        ({"upstream_url": "ftp://a"}, "must be of the form http"),
        ({"upstream_url": "http://sk-secret-1:x@a"}, "a key goes into upstream_api_key"),
        ({"upstream_url": "http://a/?key=sk-secret-1"}, "a key goes into upstream_api_key"),
        ({"upstream_api_key": "sk-secret-1\nX: y"}, "visible ASCII"),
        ({"upstream_concurrency": 0}, "FOREBAY_UPSTREAM_CONCURRENCY"),
    ],
)
def test_a_bad_upstream_is_refused_and_a_secret_in_it_not_repeated(
    flags: dict[str, object], told: str
) -> None:
    with pytest.raises(SettingsError, match=told) as raised:
        load_settings(**flags)
    assert "sk-secret-1" not in str(raised.value)


@pytest.mark.parametrize(
    ("flags", "name", "has_folder"),
    [
        ({}, "forebay-demo", True),
        ({"upstream_url": "http://a"}, "upstream", False),
        ({"upstream_url": "http://a", "upstream_model": "zai-org/GLM-4.6V"}, "GLM-4.6V", False),
        ({"upstream_url": "http://a", "model": "/m/GLM-4.1V"}, "GLM-4.1V", True),
        ({"upstream_url": "http://a", "model_name": "ours", "upstream_model": "x"}, "ours", False),
    ],
)
def test_the_served_name_and_the_folder_with_prices(
    flags: dict[str, object], name: str, has_folder: bool
) -> None:
    settings = load_settings(**flags)
    assert settings.served_name == name
    assert (settings.profile_folder is not None) is has_folder


def test_before_an_upstream_without_a_folder_the_door_prices_as_glm4v_does() -> None:
    profile = model_profile(load_settings(upstream_url="http://a", upstream_context_tokens=99))
    assert (profile.name, profile.context_tokens, profile.rules) == ("upstream", 99, GridRules())
    assert profile.knows("glm-4v-flash")


SECRET = "whsec_" + "c2VjcmV0IG9mIHRoZSB0ZXN0cyBvZiB3ZWJob29rcw=="


def test_the_secrets_of_webhooks_come_from_the_setting_and_from_a_file(tmp_path: Path) -> None:
    assert load_settings().webhook_secrets() == ()
    file = tmp_path / "secrets"
    file.write_text(f"{SECRET}\n{SECRET}\n")
    assert len(load_settings(webhook_secret=SECRET).webhook_secrets()) == 1
    assert len(load_settings(webhook_secret_file=str(file)).webhook_secrets()) == 2
    both = load_settings(webhook_secret=SECRET, webhook_secret_file=str(file))
    assert len(both.webhook_secrets()) == 3
    assert SECRET not in repr(both)


@pytest.mark.parametrize("text", ["", "\n", "password", f"{SECRET} password"])
def test_a_file_that_holds_no_secrets_stops_the_start(tmp_path: Path, text: str) -> None:
    file = tmp_path / "secrets"
    settings = load_settings(webhook_secret_file=str(file))
    with pytest.raises(SettingsError, match="webhook_secret_file"):
        settings.webhook_secrets()  # it is not there
    file.write_text(text)
    with pytest.raises(SettingsError, match="webhook_secret_file"):
        settings.webhook_secrets()


def test_settings_of_webhooks_are_refused_by_name_and_no_secret_is_repeated() -> None:
    with pytest.raises(SettingsError, match="webhook_allow") as error:
        load_settings(webhook_allow="10.0.0.0/8, http://hooks.internal")
    for ports in ("0", "", "80,70000", "http"):
        with pytest.raises(SettingsError, match="webhook_ports"):
            load_settings(webhook_ports=ports)
    with pytest.raises(SettingsError, match="webhook_secret") as error:
        load_settings(webhook_secret="my-password")
    assert "my-password" not in str(error.value)


def test_settings_of_webhooks_reach_a_child_process(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"webhook_secret": SECRET, "webhook_ports": "80,8443", "webhook_allow": "10.0.0.0/8,a.b"}
    settings = load_settings(**told)
    for name, value in settings.to_environment().items():
        monkeypatch.setenv(name, value)
    child = load_settings()
    assert child == settings
    assert (child.webhook_ports, child.webhook_allow) == ((80, 8443), ("10.0.0.0/8", "a.b"))


def test_pictures_are_kept_where_the_setting_says(tmp_path: Path) -> None:
    default = load_settings(data_dir=tmp_path).blob_address()
    assert (default.folder, default.bucket) == (tmp_path / "blobs", None)
    assert load_settings(blob_store=str(tmp_path)).blob_address().folder == tmp_path
    redis = load_settings(blob_store="redis").blob_address()
    assert (redis.folder, redis.bucket) == (None, None)
    bucket = load_settings(
        blob_store="s3://pictures/a/b/",
        s3_endpoint="https://host:9000",
        s3_access_key_id="id",
        s3_secret_access_key="hush",
    )
    address = bucket.blob_address().bucket
    assert address is not None
    assert (address.name, address.prefix, address.endpoint) == (
        "pictures",
        "a/b",
        "https://host:9000",
    )
    assert (address.key_id, address.secret) == ("id", "hush")
    assert "hush" not in repr(bucket) + repr(address)
