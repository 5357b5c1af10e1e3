"""Alerts by HTTP and by command: seen, silenced, tested, every deed recorded."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from redis.asyncio import Redis
from typer.testing import CliRunner, Result

from forebay.access.caller import Allowance, Scope
from forebay.access.opening import open_keys
from forebay.admission.pool import DecoderPool
from forebay.api.alerts.composition import alert_channels, alert_desk
from forebay.api.alerts.desk import AlertDesk
from forebay.api.app import build
from forebay.cli import app
from forebay.config import Settings, SettingsError, load_settings
from forebay.core.request import DEFAULT_TENANT
from forebay.ops.alerts.states import Alert, Stage
from forebay.ops.alerts.store import AlertStore
from forebay.ops.metrics import Metrics
from forebay.queue.connection import connect
from forebay.queue.embedded import EmbeddedValkey
from tests.access.doors import bearer, guarded, make_key
from tests.api.door import Door
from tests.ops import receivers
from tests.ops.receivers import WebhookReceiver

HOOK_SECRET = "whsec_" + "c2VjcmV0IG9mIHRoZSB0ZXN0cyBvZiB3ZWJob29rcw=="
GPU = Alert("GpuBusy", (("gpu", "0"), ("host", "h")), Stage.FIRING, 0.91, 1.0, 301.0)


def settings(**more: object) -> Settings:
    return load_settings(queue_name="test", **more)


def desk_of(redis: Redis, **more: object) -> AlertDesk:
    return alert_desk(settings(**more), redis, Metrics())


@asynccontextmanager
async def administered(
    redis: Redis, folder: Path, decoders: DecoderPool, desk: AlertDesk | None
) -> AsyncIterator[tuple[Door, dict[str, str]]]:
    async with guarded(redis, folder, decoders, alerts=desk) as (door, access):
        yield door, bearer(await make_key(access, Scope.ADMIN))


async def firing(store: AlertStore, *alerts: Alert) -> None:
    assert await store.lead("p", 60.0)
    changes = [{"key": one.key, "stage": one.stage.value} for one in alerts]
    assert await store.keep("p", {one.key: one for one in alerts}, changes)


async def test_what_fires_is_listed_with_its_words_rule_and_history(
    redis: Redis, tmp_path: Path, decoders: DecoderPool
) -> None:
    desk = desk_of(redis)
    await firing(desk.store, GPU)
    async with administered(redis, tmp_path, decoders, desk) as (door, admin):
        found = (await door.http.get("/v1/admin/alerts", headers=admin)).json()
        log = (await door.http.get("/v1/admin/alerts/history", headers=admin)).json()
    (alert,) = found["data"]
    assert alert["key"] == 'GpuBusy{gpu="0",host="h"}'
    assert (alert["state"], alert["severity"], alert["silenced"]) == ("firing", "warning", False)
    assert alert["text"]["en"] == "GPU 0 of h is used by 91%; the threshold is 85%."
    assert "91%" in alert["text"]["zh"]
    assert {one["name"] for one in found["rules"]} == {one.name for one in desk.rules}
    assert log["data"] == [{"key": alert["key"], "stage": "firing"}]


async def test_a_silence_is_made_seen_ended_and_recorded(
    redis: Redis, tmp_path: Path, decoders: DecoderPool
) -> None:
    desk = desk_of(redis)
    await firing(desk.store, GPU)
    form = {"rule": "GpuBusy", "labels": {"gpu": "0"}, "for_s": 60, "reason": "load test"}
    async with administered(redis, tmp_path, decoders, desk) as (door, admin):
        path = "/v1/admin/alerts/silences"
        made = await door.http.post(path, json=form, headers=admin)
        assert made.status_code == 201
        assert made.json()["until_s"] == pytest.approx(time.time() + 60, abs=5)
        listed = (await door.http.get("/v1/admin/alerts", headers=admin)).json()
        assert listed["data"][0]["silenced"] is True
        assert listed["silences"][0]["reason"] == "load test"
        one = f"{path}/{made.json()['silence_id']}"
        assert (await door.http.delete(one, headers=admin)).status_code == 200
        again = await door.http.delete(one, headers=admin)
        assert (again.status_code, again.json()["error"]["code"]) == (404, "silence_not_found")
        deeds = (await door.http.get("/v1/admin/audit", headers=admin)).json()["data"]
    assert [(deed["action"], deed["outcome"]) for deed in deeds] == [
        ("alert.unsilence", "silence_not_found"),
        ("alert.unsilence", "done"),
        ("alert.silence", "done"),
    ]


@pytest.mark.parametrize(
    "form",
    [
        {"for_s": 0}, {"for_s": 1e9}, {"rule": "Nothing", "for_s": 1}, {"for_s": 1, "more": 1},
        {"labels": {str(i): "" for i in range(11)}, "for_s": 1}, {},
    ],
)  # fmt: skip
async def test_a_silence_that_makes_no_sense_is_refused(
    redis: Redis, tmp_path: Path, decoders: DecoderPool, form: dict[str, object]
) -> None:
    desk = desk_of(redis)
    async with administered(redis, tmp_path, decoders, desk) as (door, admin):
        reply = await door.http.post("/v1/admin/alerts/silences", json=form, headers=admin)
    assert reply.status_code == 400
    assert await desk.store.silences(time.time()) == []


async def test_there_are_not_more_silences_than_may_be(
    redis: Redis, tmp_path: Path, decoders: DecoderPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forebay.ops.alerts.store.MOST_SILENCES", 1)
    async with administered(redis, tmp_path, decoders, desk_of(redis)) as (door, admin):
        path = "/v1/admin/alerts/silences"
        codes = [
            (await door.http.post(path, json={"for_s": 9}, headers=admin)).status_code
            for _ in range(2)
        ]
    assert codes == [201, 400]


async def test_a_test_push_says_what_became_of_each_channel(
    redis: Redis, tmp_path: Path, decoders: DecoderPool
) -> None:
    receiver = WebhookReceiver(receivers.standard_webhook(HOOK_SECRET))
    async with receiver.listening() as url:
        port = url.rpartition(":")[2]
        desk = desk_of(
            redis, alert_allow="127.0.0.1", alert_ports=port, alert_slack_url=f"{url}/hook",
            alert_webhook_url=f"{url}/alerts", alert_webhook_secret=HOOK_SECRET,
        )  # fmt: skip
        async with administered(redis, tmp_path, decoders, desk) as (door, admin):
            path = "/v1/admin/alerts/test"
            every = (await door.http.post(path, headers=admin)).json()["data"]
            form = {"channel": "webhook"}
            one = (await door.http.post(path, json=form, headers=admin)).json()["data"]
            wrong = await door.http.post(path, json={"channel": "pager"}, headers=admin)
    assert every == [
        {"channel": "slack", "sent": False, "reason": "it answered with status 401"},
        {"channel": "webhook", "sent": True, "reason": None},
    ]
    assert one == [{"channel": "webhook", "sent": True, "reason": None}]
    assert wrong.status_code == 400
    assert "slack, webhook" in wrong.json()["error"]["message"]
    assert receiver.bodies[-1]["data"]["alerts"][0]["state"] == "test"


async def test_only_administrators_see_and_touch_alerts(
    redis: Redis, tmp_path: Path, decoders: DecoderPool
) -> None:
    async with guarded(redis, tmp_path, decoders, alerts=desk_of(redis)) as (door, access):
        user = bearer(await make_key(access))
        for method, path in (
            ("GET", ""), ("GET", "/history"), ("POST", "/silences"), ("POST", "/test"),
            ("DELETE", "/silences/x"),
        ):  # fmt: skip
            url = f"/v1/admin/alerts{path}"
            assert (await door.http.request(method, url, headers=user)).status_code == 403
            assert (await door.http.request(method, url)).status_code == 401


async def test_a_door_without_alerts_says_so(
    redis: Redis, tmp_path: Path, decoders: DecoderPool
) -> None:
    async with administered(redis, tmp_path, decoders, None) as (door, admin):
        reply = await door.http.get("/v1/admin/alerts", headers=admin)
    assert reply.status_code == 404
    assert "alerts" in reply.json()["error"]["message"]


async def test_an_api_judges_by_itself_and_pushes_what_it_finds(
    valkey: EmbeddedValkey, tmp_path: Path
) -> None:
    receiver = WebhookReceiver(receivers.standard_webhook(HOOK_SECRET))
    async with receiver.listening() as url:
        told = settings(
            queue_url=valkey.url, data_dir=tmp_path, alert_every_s=1, alert_gpu_memory_limit=1,
            alert_allow="127.0.0.1", alert_ports=url.rpartition(":")[2],
            alert_webhook_url=f"{url}/alerts", alert_webhook_secret=HOOK_SECRET,
            alert_expiry_days=3, alert_language="zh", image_processes=1,
        )  # fmt: skip
        redis = connect(valkey.url)
        await redis.flushdb()
        keys = await open_keys(told.pepper_file(tmp_path), redis, "test")
        await keys.create("k", frozenset({Scope.ADMIN}), DEFAULT_TENANT, Allowance(), 86_400.0)
        async with build(told) as made:
            async with asyncio.timeout(30):
                while not any(  # noqa: ASYNC110 - it is the receiver that is told
                    _named(one, "KeyExpiring") for one in receiver.bodies
                ):
                    await asyncio.sleep(0.05)
            text = httpx.ASGITransport(app=made)
            async with httpx.AsyncClient(transport=text, base_url="http://t") as http:
                metrics = (await http.get("/metrics")).text
        await redis.aclose()
    (alert,) = receiver.bodies[0]["data"]["alerts"]
    assert alert["text"] == "有一个 API 密钥将在 1.0 天后过期。"
    assert "forebay_memory_use_ratio{" in metrics
    assert re.search(r'^forebay_alerts_firing\{process="[^"]+"\} 1\.0$', metrics, re.MULTILINE)
    assert 'forebay_alert_pushes_total{channel="webhook",outcome="sent",' in metrics
    judged = re.search(
        r"^forebay_alerts_judged_timestamp_seconds\{.*\} (\S+)$", metrics, re.MULTILINE
    )
    assert judged is not None
    assert abs(float(judged[1]) - time.time()) < 300


def _named(body: dict[str, dict[str, list[dict[str, str]]]], name: str) -> bool:
    return any(one["name"] == name for one in body["data"]["alerts"])


class Commands:
    """The command line upon a queue in a data folder."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(app, ["alerts", *arguments, "--data-dir", str(self.data_dir)])


async def _fire(url: str) -> None:
    redis = connect(url)
    await firing(AlertStore(redis, "main"), GPU)
    await redis.aclose()


def test_the_commands_list_and_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forebay.cli_view.console.width", 200)
    commands = Commands(tmp_path)
    with EmbeddedValkey(tmp_path / "queue") as server:
        quiet = commands.run("list")
        assert (quiet.exit_code, quiet.stdout.strip()) == (0, "Nothing fires.")
        asyncio.run(_fire(server.url))
        loud = commands.run("list")
        assert loud.exit_code == 1
        assert "GPU 0 of h is used by 91%" in loud.stdout
        made = commands.run("silence", "5", "--rule", "GpuBusy", "--label", "gpu=0")
        assert made.exit_code == 0, made.output
        found = json.loads(commands.run("list", "--json").stdout)
        assert found["data"][0]["silenced"] is True
        assert found["silences"][0]["by"].startswith("cli:")
        ended = commands.run("unsilence", made.stdout.splitlines()[-1].split()[0])
        assert ended.exit_code == 0
        assert json.loads(commands.run("list", "--json").stdout)["silences"] == []
        assert commands.run("silence", "5", "--rule", "Nothing").exit_code == 2
        assert commands.run("silence", "5", "--label", "gpu").exit_code == 2


def test_the_command_writes_prometheus_rules_with_the_settings(tmp_path: Path) -> None:
    out = tmp_path / "rules.yml"
    done = CliRunner().invoke(
        app, ["alerts", "rules", "--out", str(out), "--set", "alert_queue_waiting=77"]
    )
    assert done.exit_code == 0
    assert '> 77"' in out.read_text(encoding="utf-8")


def test_the_test_command_fails_where_nothing_is_set_up_or_taken() -> None:
    nothing = CliRunner().invoke(app, ["alerts", "test"])
    assert nothing.exit_code == 1
    assert "No channel" in nothing.output
    refused = CliRunner().invoke(
        app, ["alerts", "test", "--set", "alert_slack_url=http://127.0.0.1/services/tok3n"]
    )
    assert refused.exit_code == 1
    assert "public internet" in refused.stdout
    assert "tok3n" not in refused.output


def test_addresses_and_secrets_come_from_files(tmp_path: Path) -> None:
    for name, text in (("dd", "https://oapi.dingtalk.com/robot/send?access_token=t"), ("s", "SEC")):
        (tmp_path / name).write_text(f"{text}\n", encoding="utf-8")
    (channel,) = alert_channels(
        settings(
            alert_dingtalk_url_file=str(tmp_path / "dd"),
            alert_dingtalk_secret_file=str(tmp_path / "s"),
        )
    )
    assert channel.name == "dingtalk"
    assert (channel._url[-2:], channel._secret) == ("=t", "SEC")


@pytest.mark.parametrize(
    ("told", "word"),
    [
        ({"alert_webhook_url": "https://x.example"}, "alert_webhook_secret"),
        ({"alert_smtp_host": "h"}, "alert_mail_from"),
        ({"alert_smtp_user": "u", "alert_smtp_tls": "none"}, "alert_smtp_tls"),
        ({"alert_cpu": "1.5"}, "alert_cpu"),
        ({"alert_ports": "0"}, "alert_ports"),
        ({"alert_allow": "10.0.0.0/99"}, "alert_allow"),
    ],
)
def test_settings_that_cannot_work_stop_the_start(told: dict[str, str], word: str) -> None:
    with pytest.raises(SettingsError, match=word):
        settings(**told)


def test_a_secret_is_in_no_error_and_no_text_of_the_settings() -> None:
    with pytest.raises(SettingsError) as caught:
        settings(alert_webhook_secret="whsec_short")
    assert "whsec_short" not in str(caught.value)
    text = repr(settings(alert_slack_url="https://hooks.slack.com/services/tok3n"))
    assert "tok3n" not in text
