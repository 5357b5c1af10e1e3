"""The forms of server that operators run, each the real thing."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
import redis as sync_redis

from forebay.config import SettingsError, load_settings
from forebay.core.errors import QueueUnavailableError
from forebay.core.request import TaskId, Tenant
from forebay.doctor import examine
from forebay.findings import Verdict
from forebay.queue.address import Login, Tls, parse_address
from forebay.queue.batches import BatchRecord, BatchStatus, RedisBatches
from forebay.queue.errors import (
    EvictionPolicyError,
    ReadOnlyServerError,
    ServerLoginError,
    ServerRightsError,
    ServerTlsError,
    WrongServerKindError,
)
from forebay.queue.files import FileRecord, RedisFiles
from forebay.queue.opening import OpenQueue, Place, open_queue
from forebay.queue.ports import StreamKind, StreamWrite
from forebay.queue.responses import RedisResponses, ResponseRecord
from forebay.queue.rights import acl_command, commands
from tests.queue.making import PLENTY, answer, held, names, task
from tests.queue.servers import (
    Certificates,
    free_ports,
    make_certificates,
    server,
    tls_program,
    tls_server,
)

SECRET = "p@ss/wörd-never-shown"


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def opening(url: str, **more: Any) -> AbstractAsyncContextManager[OpenQueue]:
    return open_queue(parse_address(url, **more))


async def keep_records(place: Place) -> None:
    """Use everything that files, batches and responses use."""
    files, tenant = RedisFiles(place.redis, place.name), Tenant("anna")
    file = FileRecord("file-a", tenant, "a", "batch", 1, 100, 200)
    await files.add(file)
    assert await files.count(tenant) == 1
    assert await files.newest_first(tenant) == [await files.get("file-a")]
    await files.remove(file)
    batches = RedisBatches(place.redis, place.name)
    batch = BatchRecord("batch_a", tenant, "/v1/responses", "file-a", 100, 200, 300, "24h", {})
    await batches.open(batch)
    assert await batches.newest_first(tenant, "batch_a", 1) == []
    assert await batches.take("one") == batch
    await batches.cancel("batch_a", 150)
    await batches.close("batch_a", "one", status=BatchStatus.CANCELLED)
    await batches.drop_from_list(tenant, ["batch_a"])
    responses = RedisResponses(place.redis, place.name)
    response = ResponseRecord(TaskId("a"), tenant, background=True, terms={})
    await responses.keep(response)
    await responses.ended(response.response_id)
    assert await responses.get(response.response_id) == response
    await responses.remove(response.response_id)


async def run_through(opened: OpenQueue) -> None:
    """Use everything that the door and a worker use."""
    await keep_records(opened.places[0])
    queue = opened.queue
    for name in ("a", "b", "c", "d"):
        await queue.enqueue(task(name, deadline_s=60))
    await queue.enqueue(task("e", delay_s=60))
    assert await queue.cancel(TaskId("d"))
    assert (await queue.depth()).waiting == 4
    a, b, c = await queue.claim("w", 9, PLENTY)
    assert (await queue.heartbeat("w", [held(a), held(b), held(c)])).lost == set()
    assert await queue.workers() == 1
    async with opened.streams as streams:
        assert await streams.append([StreamWrite(a.task_id, a.fence, "4", 1)]) == set()
        async with streams.subscribe(a.task_id) as entries:
            assert await queue.finish([answer(a)]) == ["a"]
            kinds = [entry.kind async for entry in entries]
        assert kinds == [StreamKind.DELTA, StreamKind.DONE]
        async with streams.subscribe(a.task_id) as entries:
            assert [entry.kind async for entry in entries] == kinds
    assert await queue.release([held(b)]) == ["b"]
    assert await queue.redeliver([held(c)], "tried") == ["c"]
    assert names(await queue.claim("w", 1, PLENTY)) == ["c"]
    assert await queue.reap("w") == ["c"]
    await queue.wait_for_work(0.01)
    await queue.ping()
    record = await queue.get(TaskId("a"))
    assert record is not None
    assert record.text == "42"


async def test_over_tls_with_a_trusted_authority(
    tmp_path: Path, certificates: Certificates
) -> None:
    with tls_server(tmp_path, certificates) as port:
        async with opening(f"rediss://localhost:{port}", tls=Tls(certificates.ca)) as opened:
            await run_through(opened)


async def test_a_certificate_that_is_not_trusted_is_refused(
    tmp_path: Path, certificates: Certificates
) -> None:
    with tls_server(tmp_path, certificates) as port:
        for tls in (Tls(), Tls(certificates.other_ca)):
            with pytest.raises(ServerTlsError, match="queue_tls_ca"):
                async with opening(f"rediss://localhost:{port}", tls=tls):
                    pass
        async with opening(f"rediss://127.0.0.1:{port}", tls=Tls(verify=False)) as opened:
            await opened.queue.ping()


async def test_a_server_may_ask_for_our_certificate(
    tmp_path: Path, certificates: Certificates
) -> None:
    with tls_server(tmp_path, certificates, ask_client=True) as port:
        url = f"rediss://127.0.0.1:{port}"
        own = Tls(certificates.ca, certificates.client_cert, certificates.client_key)
        async with opening(url, tls=own) as opened:
            await opened.queue.ping()
        with pytest.raises(Exception, match=r"certificate|did not answer"):
            async with opening(url, tls=Tls(certificates.ca)):
                pass


async def test_tls_to_a_port_without_it_says_so(tmp_path: Path, certificates: Certificates) -> None:
    with (
        server(tmp_path) as node,
        pytest.raises(QueueUnavailableError, match="no TLS on this port"),
    ):
        async with opening(f"rediss://127.0.0.1:{node.port}", tls=Tls(certificates.ca)):
            pass


@pytest.mark.skipif(tls_program() is None, reason="no server with TLS built in is installed")
async def test_a_plain_url_to_a_tls_port_says_so(
    tmp_path: Path, certificates: Certificates
) -> None:
    with (
        tls_server(tmp_path, certificates) as port,
        pytest.raises(QueueUnavailableError, match="Then use rediss://"),
    ):
        async with opening(f"redis://127.0.0.1:{port}"):
            pass


async def test_a_user_with_the_printed_rule_can_do_everything_and_no_more(tmp_path: Path) -> None:
    with server(tmp_path) as node:
        rule = acl_command("main", "queue")
        node.run(*rule.replace("'", "").split(), f">{SECRET}")
        login = Login("queue", SECRET)
        async with opening(node.url, login=login) as opened:
            await run_through(opened)
        with sync_redis.Redis(port=node.port, username="queue", password=SECRET) as client:
            for command in (["FLUSHALL"], ["GET", "other"], ["CONFIG", "GET", "*"], ["KEYS", "*"]):
                with pytest.raises(sync_redis.exceptions.NoPermissionError):
                    client.execute_command(*command)


async def test_a_missing_right_is_told(tmp_path: Path) -> None:
    with server(tmp_path) as node:
        for lacking in ("info", "fcall", "function|load", "hset"):
            rule = acl_command("main", "queue").replace("'", "").replace(f" +{lacking} ", " ")
            node.run("ACL", "DELUSER", "queue")
            node.run(*rule.split(), f">{SECRET}")
            with pytest.raises(ServerRightsError, match="forebay doctor") as trouble:
                async with opening(node.url, login=Login("queue", SECRET)) as opened:
                    await opened.queue.enqueue(task("a"))
            assert lacking.split("|")[0] in str(trouble.value)


def test_the_rule_names_what_the_library_calls() -> None:
    assert {"zadd", "hincrby", "xadd", "fcall"} <= set(commands())
    assert not {"flushall", "config", "keys", "eval"} & set(commands())


@pytest.mark.parametrize("given", ["none", "wrong", "wrong in the URL", "wrong in a file"])
async def test_a_wrong_password_is_told_and_never_shown(
    tmp_path: Path, given: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    with server(tmp_path / "server", "requirepass right") as node:
        file = tmp_path / "password"
        file.write_text(SECRET + "\n")
        login = {
            "none": Login(),
            "wrong": Login(password=SECRET),
            "wrong in the URL": Login(),
            "wrong in a file": Login(password_file=file),
        }[given]
        url = node.url
        if given == "wrong in the URL":
            url = f"redis://:p%40ss%2Fw%C3%B6rd-never-shown@127.0.0.1:{node.port}"
        address = parse_address(url, login)
        with pytest.raises(ServerLoginError, match="queue_password") as trouble:
            async with open_queue(address):
                pass
        shown = [str(address), repr(address), caplog.text, *capsys.readouterr()]
        error: BaseException | None = trouble.value
        while error is not None:
            shown += [str(error), repr(error)]
            error = error.__cause__ or error.__context__
        assert not [one for one in shown if "never-shown" in one]


async def test_a_new_password_in_the_file_needs_no_restart(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("first\n")
    with server(tmp_path / "server", "requirepass first") as node:
        async with opening(node.url, login=Login(password_file=file)) as opened:
            with sync_redis.Redis(port=node.port, password="first") as client:
                client.config_set("requirepass", "second")
                file.write_text("second\n")
                client.client_kill_filter(_type="normal", skipme=True)
            await opened.queue.enqueue(task("a"))


async def test_a_replica_is_refused(tmp_path: Path) -> None:
    with server(tmp_path / "a") as primary:
        of = f"replicaof 127.0.0.1 {primary.port}"
        with (
            server(tmp_path / "b", of) as replica,
            pytest.raises(ReadOnlyServerError, match=f"replica of 127.0.0.1:{primary.port}"),
        ):
            async with opening(replica.url):
                pass


async def test_a_node_of_a_cluster_is_refused_under_a_plain_url(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with (
        server(tmp_path, "cluster-enabled yes", port=port) as node,
        pytest.raises(WrongServerKindError, match=r"redis\+cluster://"),
    ):
        async with opening(node.url):
            pass


@pytest.mark.parametrize("form", ["sentinel", "cluster"])
async def test_a_plain_server_is_refused_under_another_forms_url(tmp_path: Path, form: str) -> None:
    with (
        server(tmp_path) as node,
        pytest.raises(WrongServerKindError, match="redis://"),
    ):
        async with opening(f"redis+{form}://127.0.0.1:{node.port}/{'s' * (form == 'sentinel')}"):
            pass


async def test_a_sentinel_is_refused_under_a_plain_url(tmp_path: Path) -> None:
    with (
        server(tmp_path, mode=["--sentinel"]) as node,
        pytest.raises(WrongServerKindError, match=r"redis\+sentinel://"),
    ):
        async with opening(node.url):
            pass


async def test_what_is_no_redis_at_all_is_told(tmp_path: Path) -> None:
    async def http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    web = await asyncio.start_server(http, "127.0.0.1", 0)
    port = web.sockets[0].getsockname()[1]
    async with web:
        with pytest.raises(WrongServerKindError, match="not Valkey or Redis"):
            async with opening(f"redis://127.0.0.1:{port}"):
                pass


async def test_an_evicting_server_is_refused_with_the_command_for_it(tmp_path: Path) -> None:
    with (
        server(tmp_path, "maxmemory-policy allkeys-lru") as node,
        pytest.raises(EvictionPolicyError, match=f"valkey-cli -h 127.0.0.1 -p {node.port} CONFIG"),
    ):
        async with opening(node.url):
            pass


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis://h:6380/3", "redis://h:6380"),
        ("rediss://u:p@h", "rediss://h:6379"),
        ("valkey://h", "redis://h:6379"),
        ("unix:///run/v.sock?db=2", "unix:///run/v.sock"),
        ("redis+sentinel://a,b:1,[::1]:2/main?db=1", "redis+sentinel://a:26379,b:1,[::1]:2/main"),
        ("rediss+cluster://a:1,b:2", "rediss+cluster://a:1,b:2"),
    ],
)
def test_a_url_is_read_and_told_without_secrets(url: str, told: str) -> None:
    assert str(parse_address(url)) == told


@pytest.mark.parametrize(
    "url",
    [
        "http://h",
        "redis://",
        "redis://:secret@a,b",
        "redis://:secret@h:port",
        "redis://:secret@h:0",
        "redis://h/x",
        "redis://h?password=secret",
        "redis+sentinel://:secret@h",
        "redis+cluster://:secret@h/1",
        "redis+other://:secret@h",
        "unix://",
        "redis://:secret@[h",
    ],
)
def test_a_url_of_another_form_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ValueError, match=r".") as trouble:
        parse_address(url)
    assert "secret" not in str(trouble.value)
    assert trouble.value.__cause__ is None


def test_the_url_wins_over_the_settings_beside_it(tmp_path: Path) -> None:
    login = Login("u", "p", tmp_path / "file", "s")
    assert parse_address("redis://h", login).login == login
    assert parse_address("redis://x:y@h", login).login == Login("x", "y", None, "s")
    assert isinstance(parse_address("rediss://h").tls, Tls)


def test_the_doctor_prints_the_rule_that_is_missing(tmp_path: Path) -> None:
    with server(tmp_path) as node:
        node.run("ACL", "SETUSER", "queue", "on", f">{SECRET}", "+ping")
        settings = load_settings(
            queue_url=node.url, queue_username="queue", queue_password=SECRET, data_dir=tmp_path
        )
        (finding,) = [one for one in examine(settings) if one.check == "queue"]
        assert finding.verdict is Verdict.BAD
        assert finding.mend == f"Run: {acl_command('main', 'queue')}"
        assert "never-shown" not in repr(finding) + repr(settings)
        node.run(*finding.mend.removeprefix("Run: ").replace("'", "").split())
        (finding,) = [one for one in examine(settings) if one.check == "queue"]
        assert finding.verdict is Verdict.WARN
        assert "appendonly yes" in finding.mend
        node.run("CONFIG", "SET", "appendonly", "yes")
        (finding,) = [one for one in examine(settings) if one.check == "queue"]
        assert finding.verdict is Verdict.GOOD


def test_a_bad_url_in_the_settings_is_told_without_its_password() -> None:
    with pytest.raises(SettingsError, match="queue_url") as trouble:
        load_settings(queue_url="redis://:never-shown@h?option=1")
    assert "never-shown" not in str(trouble.value)
