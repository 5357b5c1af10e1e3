"""Who comes in at a real door, how often, and what they see of each other."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from pathlib import Path

import httpx
import pytest
from redis.asyncio import Redis
from starlette.routing import Route

from forebay.access.addresses import read_networks
from forebay.access.caller import Scope
from forebay.access.rules import AccessRules
from forebay.admission.cost import price_request
from forebay.admission.pool import DecoderPool
from forebay.api.app import create_app
from forebay.api.services import DoorSettings
from forebay.core.request import Priority
from forebay.logs import configure_logs
from tests.access.doors import (
    KEYS_ONLY,
    bearer,
    guarded,
    hs256,
    make_key,
    setup,
    token,
)
from tests.api.door import Door, eventually, working

ASK = {"messages": [{"role": "user", "content": "What is the price?"}], "max_tokens": 8}
COST = price_request(["What is the price?"], [], 8).total
ADMIN = (Scope.ADMIN,)


async def post_task(door: Door, key: str, **more) -> httpx.Response:
    return await door.http.post("/v1/tasks", json={**ASK, **more}, headers=bearer(key))


async def test_without_a_key_nothing_is_open_but_the_page_and_the_signs_of_life(
    redis: Redis, tmp_path: Path, decoders: DecoderPool
) -> None:
    async with guarded(redis, tmp_path, decoders) as (door, _):
        open_paths, shut = [], []
        for path in _paths(door):
            reply = await door.http.request(path[0], path[1])
            (shut if reply.status_code == 401 else open_paths).append(path[1])
            if reply.status_code == 401:
                assert reply.headers["WWW-Authenticate"] == 'Bearer realm="forebay"'
        assert set(open_paths) == {
            "/", "/console", "/samples.json", "/healthz", "/health", "/ready", "/metrics", "/docs",
            "/openapi.json", "/health/generate",
        }  # fmt: skip
        assert {"/predict", "/result", "/v1/models", "/v1/admin/keys"} <= set(shut)
        assert await door.waiting() == 0


def _paths(door: Door) -> list[tuple[str, str]]:
    app = create_app(door.services)
    plain = [one for one in app.routes if isinstance(one, Route)]
    found = {(method, one.path) for one in plain for method in one.methods or ()}
    for path, methods in app.openapi()["paths"].items():
        found |= {(method.upper(), path) for method in methods}
    assert len(found) > 20
    return [(method, re.sub(r"{\w+}", "x", path)) for method, path in found if method != "HEAD"]


async def test_both_headers_and_both_forms_of_error(
    redis: Redis, tmp_path: Path, decoders: DecoderPool
) -> None:
    async with guarded(redis, tmp_path, decoders) as (door, access):
        key = await make_key(access)
        for headers in (bearer(key), {"X-API-Key": key}):
            assert (await door.http.get("/v1/models", headers=headers)).status_code == 200
        wrong = await door.http.get("/v1/models", headers=bearer("fb_nothing"))
        assert wrong.status_code == 401
        assert wrong.json()["error"]["code"] == "unauthorized"
        assert 'error="invalid_token"' in wrong.headers["WWW-Authenticate"]
        plain = await door.http.get("/result?task_id=x")
        assert plain.json()["code"] == "unauthorized"
        assert isinstance(plain.json()["error"], str)


async def test_a_scope_that_lacks_is_named(
    redis: Redis, tmp_path: Path, decoders: DecoderPool
) -> None:
    async with guarded(redis, tmp_path, decoders) as (door, access):
        infer, admin = await make_key(access, Scope.INFER), await make_key(access, *ADMIN)
        for key, path, scope in (
            (infer, "/v1/tasks", "tasks"),
            (infer, "/v1/admin/keys", "admin"),
            (admin, "/v1/models", "infer"),
            (admin, "/v1/tasks/x", "tasks"),
        ):
            reply = await door.http.get(path, headers=bearer(key))
            assert reply.status_code == 403
            assert f"'{scope}'" in reply.json()["error"]["message"]


async def test_a_task_is_its_tenants_alone(
    redis: Redis, tmp_path: Path, decoders: DecoderPool
) -> None:
    async with guarded(redis, tmp_path, decoders, setup(tmp_path, tokens=hs256())) as (
        door,
        access,
    ):
        mine, same = [await make_key(access, tenant="acme") for _ in range(2)]
        others = [await make_key(access, tenant="rival"), token(), await make_key(access)]
        task_id = (await post_task(door, mine)).json()["id"]
        missing = (await door.http.get("/v1/tasks/" + "0" * 32, headers=bearer(mine))).json()
        for other in others:
            for method, path in (
                ("GET", f"/v1/tasks/{task_id}"),
                ("GET", f"/v1/tasks/{task_id}/result"),
                ("GET", f"/v1/tasks/{task_id}/events"),
                ("DELETE", f"/v1/tasks/{task_id}"),
                ("POST", f"/v1/tasks/{task_id}/cancel"),
                ("GET", f"/result?task_id={task_id}"),
            ):
                reply = await door.http.request(method, path, headers=bearer(other))
                assert reply.status_code == 404, (method, path)
                if path == f"/v1/tasks/{task_id}":
                    said = reply.json()["error"]["message"].replace(task_id, "0" * 32)
                    assert said == missing["error"]["message"]
            listed = await door.http.get("/v1/tasks", headers=bearer(other))
            assert listed.json()["data"] == []
        for own in (mine, same):
            seen = await door.http.get(f"/v1/tasks/{task_id}", headers=bearer(own))
            assert seen.json()["status"] == "queued"
        ended = await door.http.delete(f"/v1/tasks/{task_id}", headers=bearer(same))
        assert ended.json()["status"] == "cancelled"


async def test_an_idempotency_key_is_its_tenants_alone(
    redis: Redis, tmp_path: Path, decoders: DecoderPool
) -> None:
    async with guarded(redis, tmp_path, decoders) as (door, access):
        ids = []
        for tenant in ("acme", "acme", "rival"):
            headers = {**bearer(await make_key(access, tenant=tenant)), "Idempotency-Key": "one"}
            reply = await door.http.post("/v1/tasks", json=ASK, headers=headers)
            ids.append(reply.json()["id"])
        assert ids[0] == ids[1] != ids[2]


async def test_a_caller_is_held_to_what_its_key_may_have(
    redis: Redis, tmp_path: Path, decoders: DecoderPool
) -> None:
    async with guarded(redis, tmp_path, decoders) as (door, access):
        key = await make_key(access, max_unfinished=2)
        replies = [await post_task(door, key) for _ in range(3)]
        assert [one.status_code for one in replies] == [202, 202, 429]
        assert int(replies[2].headers["Retry-After"]) >= 1
        first = replies[0].json()["id"]
        await door.http.delete(f"/v1/tasks/{first}", headers=bearer(key))
        assert (await post_task(door, key)).status_code == 202
        async with working(door):
            await eventually(lambda: _empty(door))
        assert (await post_task(door, key)).status_code == 202


async def _empty(door: Door) -> bool:
    return await door.waiting() == 0


async def test_priorities_end_at_a_keys_own(
    redis: Redis, tmp_path: Path, decoders: DecoderPool
) -> None:
    async with guarded(redis, tmp_path, decoders) as (door, access):
        key = await make_key(access, top_priority=Priority(7))
        vip = await post_task(door, key, priority="vip")
        assert vip.status_code == 403
        assert vip.json()["error"]["param"] == "priority"
        usual = (await post_task(door, key)).json()
        record = await door.queue.get(usual["id"])
        assert record.priority == 7
        assert (await post_task(door, key, priority=9)).status_code == 202


async def test_a_token_budget_is_charged_and_given_back_where_nothing_was_taken(
    redis: Redis, tmp_path: Path, decoders: DecoderPool
) -> None:
    async with guarded(redis, tmp_path, decoders) as (door, access):
        key = await make_key(access, tokens_per_day=2 * COST, max_unfinished=1)
        assert (await post_task(door, key)).status_code == 202
        over = [(await post_task(door, key)).json()["error"]["code"] for _ in range(10)]
        assert set(over) == {"tenant_over_quota"}, "a refusal must not eat the budget"
        frugal = await make_key(access, tokens_per_minute=2 * COST)
        refused = [(await post_task(door, frugal)) for _ in range(3)][-1]
        assert refused.json()["error"]["code"] == "rate_limited"
        assert "tokens per minute" in refused.json()["error"]["message"]
        assert 1 <= int(refused.headers["Retry-After"]) <= 60
        tiny = await post_task(door, await make_key(access, tokens_per_minute=COST - 1))
        assert tiny.json()["error"]["code"] == "forbidden", "to wait would not help"
        assert "Retry-After" not in tiny.headers


async def test_what_costs_nothing_eats_no_budget(
    redis: Redis, tmp_path: Path, decoders: DecoderPool
) -> None:
    settings = DoorSettings(reuse_answers=True)
    async with guarded(redis, tmp_path, decoders, settings=settings) as (door, access):
        key = bearer(await make_key(access, tokens_per_day=3 * COST))

        async def post(**headers: str) -> int:
            body = {**ASK, "temperature": 0}
            reply = await door.http.post("/v1/tasks", json=body, headers={**key, **headers})
            return reply.status_code

        assert [await post(**{"Idempotency-Key": "one"}) for _ in range(10)] == [202] + 9 * [200]
        assert [await post() for _ in range(10)] == [202] * 10, "joined to the first"
        assert 429 in [await post(**{"Cache-Control": "no-store"}) for _ in range(4)]


async def test_a_rate_is_counted_over_all_processes_and_says_exactly_when(
    redis: Redis, tmp_path: Path, decoders: DecoderPool
) -> None:
    how = setup(tmp_path)
    async with (
        guarded(redis, tmp_path, decoders, how) as (one, access),
        guarded(redis, tmp_path, decoders, how) as (two, _),
    ):
        key = await make_key(access, rate_per_s=0.1, burst=3)
        replies = [await post_task(door, key) for door in (one, two, one, two)]
        assert [reply.status_code for reply in replies] == [202, 202, 202, 429]
        assert 1 <= int(replies[3].headers["Retry-After"]) <= 10


def anonymous(**more) -> AccessRules:
    return AccessRules(anonymous_rate_per_s=0.1, anonymous_burst=3, **more)


BEHIND = {"trusted_proxies": read_networks(["127.0.0.1"])}


async def test_anyone_on_this_machine_may_ask_at_any_rate_and_administer_with_a_key_alone(
    redis: Redis, tmp_path: Path, decoders: DecoderPool
) -> None:
    async with guarded(redis, tmp_path, decoders, setup(tmp_path, anonymous())) as (door, access):
        for _ in range(20):
            assert (await door.http.post("/v1/tasks", json=ASK)).status_code == 202
        assert (await door.http.get("/v1/admin/keys")).status_code == 401
        assert (await door.http.post("/v1/admin/queue/drain")).status_code == 401
        assert (await door.queue.depth()).drained is False
        for scope, status in ((Scope.TASKS, 403), (Scope.ADMIN, 200)):
            key = await make_key(access, scope)
            listed = await door.http.get("/v1/admin/keys", headers=bearer(key))
            assert listed.status_code == status
        # OpenAI's clients send some key in any case
        some = await door.http.get("/v1/models", headers=bearer("EMPTY"))
        assert some.status_code == 200


async def test_others_are_anonymous_at_a_rate_each_whatever_they_claim(
    redis: Redis, tmp_path: Path, decoders: DecoderPool
) -> None:
    rules = setup(tmp_path, anonymous(**BEHIND))
    async with guarded(redis, tmp_path, decoders, rules) as (door, _):

        async def ask(client: str, **more) -> int:
            headers = {"X-Forwarded-For": client}
            return (await door.http.post("/v1/tasks", json=ASK, headers=headers)).status_code

        assert [await ask("6.6.6.6, 192.0.2.1") for _ in range(4)] == [202, 202, 202, 429]
        assert await ask("6.6.6.6, 192.0.2.2") == 202
        assert await ask("127.0.0.1, 192.0.2.1") == 429


async def test_a_proxy_that_nobody_named_is_one_client(
    redis: Redis, tmp_path: Path, decoders: DecoderPool
) -> None:
    async with guarded(redis, tmp_path, decoders, setup(tmp_path, anonymous())) as (door, _):

        async def ask(client: str) -> int:
            headers = {"X-Forwarded-For": client}
            return (await door.http.post("/v1/tasks", json=ASK, headers=headers)).status_code

        assert [await ask(f"192.0.2.{n}") for n in range(4)] == [202, 202, 202, 429]


LOCAL = ("127.0.0.1:8080", "localhost", "LOCALHOST:1", "localhost.", "a.localhost", "[::1]:8080")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        *(({"Host": host}, 202) for host in LOCAL),
        ({"Origin": "https://evil.test"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "evil.test"}, 403),
        ({"Host": "0.0.0.0:8080"}, 403),
        ({"Host": "localhost.evil.test"}, 403),
        ({"Host": "[::1"}, 403),
        ({"Origin": "http://evil.test:1", "Host": "evil.test:1"}, 403),
        ({"Host": "evil.test", "X-Forwarded-For": "127.0.0.1"}, 403),
        ({"Host": "evil.test", "Forwarded": "for=127.0.0.1"}, 403),
    ],
    ids=str,
)
async def test_a_strangers_web_page_asks_nothing_of_a_server_on_loopback(
    redis: Redis, tmp_path: Path, decoders: DecoderPool, headers: dict[str, str], status: int
) -> None:
    rules = setup(tmp_path, anonymous(loopback_only=True))
    async with guarded(redis, tmp_path, decoders, rules) as (door, _):
        asked = await door.http.post("/v1/tasks", json=ASK, headers=headers)
        assert asked.status_code == status
        assert await door.waiting() == int(status == 202)


async def test_a_proxy_before_a_server_on_loopback_is_let_through_where_it_is_trusted(
    redis: Redis, tmp_path: Path, decoders: DecoderPool
) -> None:
    rules = setup(tmp_path, anonymous(loopback_only=True, **BEHIND))
    async with guarded(redis, tmp_path, decoders, rules) as (door, _):
        headers = {"Host": "vision.example.com", "X-Forwarded-For": "192.0.2.1"}
        assert (await door.http.post("/v1/tasks", json=ASK, headers=headers)).status_code == 202


async def test_a_page_of_ones_own_and_one_that_is_named_may_call(
    redis: Redis, tmp_path: Path, decoders: DecoderPool
) -> None:
    rules = anonymous(origins=frozenset({"https://app.test"}))
    settings = DoorSettings(cors_origins=("https://app.test",))
    async with guarded(redis, tmp_path, decoders, setup(tmp_path, rules), settings=settings) as (
        door,
        _,
    ):
        for origin in (door.url, "https://app.test"):
            reply = await door.http.get("/v1/models", headers={"Origin": origin})
            assert reply.status_code == 200
        assert reply.headers["Access-Control-Allow-Origin"] == "https://app.test"
        asked = {"Origin": "https://evil.test", "Access-Control-Request-Method": "POST"}
        preflight = await door.http.options("/v1/tasks", headers=asked)
        assert "Access-Control-Allow-Origin" not in preflight.headers


async def test_cors_is_off_by_default(redis: Redis, tmp_path: Path, decoders: DecoderPool) -> None:
    async with guarded(redis, tmp_path, decoders) as (door, access):
        headers = {**bearer(await make_key(access)), "Origin": "https://app.test"}
        reply = await door.http.get("/v1/models", headers=headers)
        assert not [name for name in reply.headers if name.startswith("access-control")]


async def test_a_scope_may_be_for_some_networks_only(
    redis: Redis, tmp_path: Path, decoders: DecoderPool
) -> None:
    allowed = {Scope.ADMIN: read_networks(["192.0.2.0/24", "2001:db8::/32"])}
    rules = AccessRules(anonymous=False, allowed=allowed, **BEHIND)
    async with guarded(redis, tmp_path, decoders, setup(tmp_path, rules)) as (door, access):
        key = bearer(await make_key(access, *Scope))
        for client, status in (
            ("192.0.2.9", 200),
            ("2001:db8::9", 200),
            ("192.0.3.9", 403),
            ("192.0.2.9, 6.6.6.6", 403),
        ):
            headers = {**key, "X-Forwarded-For": client}
            reply = await door.http.get("/v1/admin/keys", headers=headers)
            assert reply.status_code == status, client
        assert reply.json()["error"]["code"] == "address_not_allowed"
        assert (await door.http.get("/v1/models", headers=headers)).status_code == 200


async def test_the_metrics_may_be_for_some_networks_only(
    redis: Redis, tmp_path: Path, decoders: DecoderPool
) -> None:
    rules = AccessRules(allowed={"metrics": read_networks(["192.0.2.0/24"])}, **BEHIND)
    async with guarded(redis, tmp_path, decoders, setup(tmp_path, rules)) as (door, _):
        for client, status in (("192.0.2.9", 200), ("::ffff:192.0.2.9", 200), ("192.0.3.9", 403)):
            reply = await door.http.get("/metrics", headers={"X-Forwarded-For": client})
            assert reply.status_code == status
        headers = {"X-Forwarded-For": "192.0.3.9"}
        assert (await door.http.get("/healthz", headers=headers)).status_code == 200


async def test_guessing_is_slow_and_good_keys_beside_the_guesser_still_work(
    redis: Redis, tmp_path: Path, decoders: DecoderPool
) -> None:
    async with guarded(redis, tmp_path, decoders) as (door, access):
        good = await make_key(access)
        assert (await door.http.get("/v1/models", headers=bearer(good))).status_code == 200
        wrong = [good[:-3] + f"{n:03d}" for n in range(30)]
        codes = [
            (await door.http.get("/v1/models", headers=bearer(one))).status_code for one in wrong
        ]
        assert codes[:10] == [401] * 10
        assert set(codes[11:]) == {429}
        assert (await door.http.get("/v1/models", headers=bearer(good))).status_code == 200
        late = await make_key(access)
        assert (await door.http.get("/v1/models", headers=bearer(late))).status_code == 429


async def test_administration_over_http_and_its_record(
    redis: Redis, tmp_path: Path, decoders: DecoderPool
) -> None:
    async with guarded(redis, tmp_path, decoders) as (door, access):
        root = bearer(await make_key(access, *ADMIN))
        http = door.http
        form = {"label": "shop", "scopes": ["infer"], "tenant": "acme", "allowance": {"burst": 4}}
        made = (await http.post("/v1/admin/keys", json=form, headers=root)).json()
        assert (await http.get("/v1/models", headers=bearer(made["key"]))).status_code == 200
        path = f"/v1/admin/keys/{made['id']}"
        shown = await http.get(path, headers=root)
        assert shown.json()["allowance"]["burst"] == 4
        assert "key" not in shown.json()
        turned = await http.post(f"{path}/rotate", json={"overlap_s": 0}, headers=root)
        assert (await http.get("/v1/models", headers=bearer(made["key"]))).status_code == 401
        new = bearer(turned.json()["key"])
        assert (await http.get("/v1/models", headers=new)).status_code == 200
        await http.delete(path, headers=root)
        assert (await http.get("/v1/models", headers=new)).status_code == 401
        await http.post("/v1/admin/queue/drain", headers=root)
        assert (await http.get("/v1/admin/queue", headers=root)).json()["drained"] is True
        await http.post("/v1/admin/queue/undrain", headers=root)
        gone = await http.post("/v1/admin/dead-letters/nothing/retry", headers=root)
        assert gone.status_code == 404
        record = (await http.get("/v1/admin/audit", headers=root)).json()["data"]
        assert [(one["action"], one["outcome"]) for one in reversed(record)] == [
            ("key.create", "done"),
            ("key.rotate", "done"),
            ("key.revoke", "done"),
            ("queue.drain", "done"),
            ("queue.undrain", "done"),
            ("dead_letter.retry", "task_not_found"),
        ]
        assert {one["from"] for one in record} == {"127.0.0.1"}
        assert record[-1]["target"] == made["id"]
        assert all(one["actor"].startswith("key:") for one in record)
        for bad in (
            {"label": ""},
            {"label": "x", "scopes": []},
            {"label": "x", "tenant": "a b"},
            {"label": "x", "more": 1},
            {"label": "x", "allowance": {"weight": 0}},
        ):
            assert (await http.post("/v1/admin/keys", json=bad, headers=root)).status_code == 400


async def test_no_secret_is_in_the_log_the_record_or_the_metrics(
    redis: Redis,
    tmp_path: Path,
    decoders: DecoderPool,
    capfd: pytest.CaptureFixture[str],
) -> None:
    root_logger = logging.getLogger()
    before = (root_logger.handlers[:], root_logger.level)
    configure_logs("api", level="debug", form="json")
    try:
        async with guarded(redis, tmp_path, decoders, setup(tmp_path, tokens=hs256())) as (
            d,
            access,
        ):
            root, key, jwt = await make_key(access, *ADMIN), await make_key(access), token()
            made = await d.http.post("/v1/admin/keys", json={"label": "x"}, headers=bearer(root))
            secrets = [root, key, jwt, made.json()["key"], "fb_" + "0" * 16 + "_" + "w" * 43]
            for one in secrets:
                for headers in (bearer(one), {"X-API-Key": one}):
                    await d.http.get("/v1/models", headers=headers)
                    await d.http.get(f"/v1/tasks?api_key={one}", headers=headers)
            record = await d.http.get("/v1/admin/audit", headers=bearer(root))
            told = record.text + (await d.http.get("/metrics")).text
    finally:
        root_logger.handlers[:], root_logger.level = before
    out, err = capfd.readouterr()
    assert '"event": "audit"' in err
    told += out + err + json.dumps([str(one) for one in await redis.keys("*")])
    pepper = (tmp_path / "pepper").read_text().strip()
    for secret in (*secrets, pepper):
        assert secret[-30:] not in told


async def test_where_nobody_can_be_told_from_another_nobody_comes_in(
    redis: Redis, tmp_path: Path, decoders: DecoderPool
) -> None:
    async with guarded(redis, tmp_path, decoders, setup(tmp_path, KEYS_ONLY)) as (door, access):
        key = await make_key(access)
        await redis.execute_command("CLIENT", "PAUSE", "4000", "ALL")
        try:
            reply = await door.http.get("/v1/models", headers=bearer(key))
            assert reply.status_code == 503
            assert (await door.http.get("/healthz")).status_code == 200
        finally:
            await asyncio.sleep(1.5)
