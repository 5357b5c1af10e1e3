"""What the settings make of who may come in, and what they refuse to start with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from forebay.access.addresses import ForwardedHeader, read_networks
from forebay.access.caller import Scope
from forebay.access.errors import AccessSetupError
from forebay.cli_stack import own_data_dir
from forebay.config import Settings, SettingsError, load_settings
from tests.access.doors import EC_PEM, SECRET

JWT = {"auth": "jwt", "jwt_issuer": "https://id.test", "jwt_audience": "forebay"}


@pytest.mark.parametrize(
    ("host", "more", "starts"),
    [
        ("127.0.0.1", {}, True),
        ("::1", {}, True),
        ("localhost", {}, True),
        ("0.0.0.0", {}, False),
        ("::", {}, False),
        ("192.168.1.2", {}, False),
        ("127.0.0.1.example.com", {}, False),
        ("0.0.0.0", {"insecure_anyone_from_anywhere": True}, True),
        ("0.0.0.0", {"auth": "keys"}, True),
        ("127.0.0.1", {"cors_origins": "*", "cors_credentials": True}, False),
        ("127.0.0.1", {"cors_origins": "https://a.test", "cors_credentials": True}, True),
        ("127.0.0.1", {"auth": "jwt"}, False),
        ("127.0.0.1", JWT, False),
        ("127.0.0.1", {**JWT, "jwt_secret": SECRET}, True),
        ("127.0.0.1", {**JWT, "jwt_secret": SECRET, "jwt_jwks_url": "https://id.test/"}, False),
        ("127.0.0.1", {**JWT, "jwt_secret": SECRET, "jwt_audience": ""}, False),
        ("127.0.0.1", {**JWT, "auth": "both", "jwt_public_key_file": "/key.pem"}, True),
    ],
)
def test_a_door_that_would_let_the_wrong_ones_in_does_not_open(
    host: str, more: dict[str, Any], starts: bool
) -> None:
    settings = load_settings(host=host, **more)
    if starts:
        settings.check_door()
    else:
        with pytest.raises(SettingsError):
            settings.check_door()


def test_the_rules_are_those_of_the_settings(tmp_path: Path) -> None:
    settings = load_settings(
        auth="keys",
        trusted_proxies="10.0.0.0/8, ::1",
        forwarded_header="forwarded",
        allow_admin="192.0.2.0/24",
        allow_metrics="198.51.100.7",
        address_rate_per_s=3,
        cors_origins="https://a.test,https://b.test",
    )
    setup = settings.access_setup(tmp_path, settings.host)
    rules = setup.rules
    assert (setup.takes_keys, setup.tokens, rules.anonymous) == (True, None, False)
    assert rules.trusted_proxies == read_networks(["10.0.0.0/8", "::1"])
    assert rules.forwarded_header is ForwardedHeader.FORWARDED
    assert set(rules.allowed) == {Scope.ADMIN, "metrics"}
    assert rules.origins == {"https://a.test", "https://b.test"}
    assert (rules.address_rate_per_s, setup.pepper_file.parent.parent) == (3, tmp_path)


@pytest.mark.parametrize(
    ("auth", "takes_keys", "takes_tokens"),
    [("none", True, False), ("keys", True, False), ("jwt", False, True), ("both", True, True)],
)
def test_what_is_taken_follows_auth(
    tmp_path: Path, auth: str, takes_keys: bool, takes_tokens: bool
) -> None:
    settings = load_settings(**{**JWT, "auth": auth, "jwt_secret": SECRET})
    setup = settings.access_setup(tmp_path, settings.host)
    assert (setup.takes_keys, setup.tokens is not None) == (takes_keys, takes_tokens)
    assert setup.rules.anonymous is (auth == "none")


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_only_a_door_on_loopback_keeps_to_loopbacks_names(tmp_path: Path, host: str) -> None:
    rules = load_settings(host=host).access_setup(tmp_path, host).rules
    assert rules.loopback_only is (host == "127.0.0.1")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("trusted_proxies", "10.0.0.1/8"),
        ("allow_admin", "everyone"),
        ("allow_metrics", "10.0.0.0/33"),
        ("cors_origins", "app.example.com"),
        ("cors_origins", "https://app.example.com/"),
        ("forwarded_header", "x-real-ip"),
        ("auth", "password"),
        ("anonymous_rate_per_s", "0"),
    ],
)
def test_a_bad_value_is_refused_by_its_name(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        load_settings(**{name: value})


def test_secrets_come_from_files_and_reach_a_child_by_name_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "secret"
    file.write_text(f"{SECRET}\n")
    settings = load_settings(
        **JWT, jwt_secret_file=file, upstream_api_key_file=file, api_key_file=file
    )
    assert settings.secret_of("upstream_api_key") == settings.secret_of("api_key") == SECRET
    tokens = settings.access_setup(tmp_path, settings.host).tokens
    assert tokens is not None
    assert tokens.secret == SECRET
    assert SECRET not in repr(tokens) + str(settings.to_environment())
    for name, value in settings.to_environment().items():
        monkeypatch.setenv(name, value)
    assert load_settings() == settings


def test_a_secret_that_is_set_twice_or_in_no_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    twice = load_settings(api_key="fb_x", api_key_file=file)
    for settings in (twice, load_settings(api_key_file=file)):
        with pytest.raises(SettingsError, match="api_key_file"):
            settings.secret_of("api_key")
    missing = load_settings(**JWT, jwt_public_key_file=file)
    with pytest.raises(AccessSetupError, match=str(file)):
        missing.access_setup(tmp_path, missing.host)
    file.write_text(EC_PEM)
    tokens = missing.access_setup(tmp_path, missing.host).tokens
    assert tokens is not None
    assert tokens.public_pem == EC_PEM.rstrip("\n")


def test_a_demo_of_a_guarded_server_is_for_this_machine_and_asks_for_no_key() -> None:
    def own(**settings: Any) -> Settings:
        with own_data_dir(load_settings(**settings)) as found:
            return found

    guarded = own(auth="keys", host="0.0.0.0")
    assert (guarded.auth, guarded.host) == ("none", "127.0.0.1")
    assert own().host == "127.0.0.1"
    with pytest.raises(SettingsError, match="insecure_anyone_from_anywhere"):
        own(host="0.0.0.0")
    assert own(host="0.0.0.0", insecure_anyone_from_anywhere=True).host == "0.0.0.0"
