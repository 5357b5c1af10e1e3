"""The log's level at run time: wanted by route and by command, followed by every process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from redis.asyncio import Redis
from typer.testing import CliRunner

from forebay.access.caller import Scope
from forebay.admission.pool import DecoderPool
from forebay.cli import app
from forebay.ops.log_level import LevelFollower, LogLevels
from forebay.queue.connection import connect
from forebay.queue.embedded import EmbeddedValkey
from tests.access.doors import bearer, guarded, make_key

PATH = "/v1/admin/log-level"


async def eventually(look: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not look():  # noqa: ASYNC110 - whoever follows looks now and then
            await asyncio.sleep(0.02)


async def test_a_level_is_followed_and_falls_back_by_itself(redis: Redis) -> None:
    levels, set_to = LogLevels(redis, "test"), list[str]()
    async with LevelFollower(levels, "info", set_to.append, every_s=0.05):
        await levels.want("debug", 1.0, "me")
        await eventually(lambda: set_to == ["debug", "info"])
        await levels.want("error", 60.0, "me")
        await eventually(lambda: set_to[-1] == "error")
        await levels.end()
        await eventually(lambda: set_to == ["debug", "info", "error", "info"])


async def test_a_server_that_goes_away_does_not_leave_a_process_loud(tmp_path: Path) -> None:
    set_to: list[str] = []
    with EmbeddedValkey(tmp_path / "valkey") as server:
        redis = connect(server.url)
        levels = LogLevels(redis, "test")
        await levels.want("debug", 3.0, "me")
        async with LevelFollower(levels, "info", set_to.append, every_s=0.05):
            await eventually(lambda: set_to == ["debug"])
            server.stop()
            await eventually(lambda: set_to == ["debug", "info"])
        await redis.aclose()


async def test_the_route_sets_tells_and_ends_it_and_is_audited(
    redis: Redis, tmp_path: Path, decoders: DecoderPool
) -> None:
    async with guarded(redis, tmp_path, decoders) as (door, access):
        admin = bearer(await make_key(access, Scope.ADMIN))
        before = (await door.http.get(PATH, headers=admin)).json()
        form = {"level": "debug", "for_s": 60}
        during = (await door.http.put(PATH, json=form, headers=admin)).json()
        form = {"level": "configured"}
        after = (await door.http.put(PATH, json=form, headers=admin)).json()
        deeds = (await door.http.get("/v1/admin/audit", headers=admin)).json()["data"]
        user = bearer(await make_key(access))
        refused = [
            (await door.http.get(PATH, headers=user)).status_code,
            (await door.http.put(PATH, json=form, headers=user)).status_code,
            (await door.http.get(PATH)).status_code,
        ]
    assert before == after == {"level": "info", "until": None, "by": None, "configured": "info"}
    assert (during["level"], during["configured"]) == ("debug", "info")
    assert during["until"] == pytest.approx(time.time() + 60, abs=30)
    assert [(one["action"], one["target"]) for one in deeds] == [
        ("log.level", "configured"),
        ("log.level", "debug"),
    ]
    assert refused == [403, 403, 401]


@pytest.mark.parametrize(
    "form", [{}, {"level": "trace"}, {"level": "debug", "for_s": 0}, {"level": "debug", "x": 1},
             {"level": "debug", "for_s": 1e9}],
)  # fmt: skip
async def test_a_level_that_makes_no_sense_is_refused(
    redis: Redis, tmp_path: Path, decoders: DecoderPool, form: dict[str, object]
) -> None:
    async with guarded(redis, tmp_path, decoders) as (door, access):
        admin = bearer(await make_key(access, Scope.ADMIN))
        assert (await door.http.put(PATH, json=form, headers=admin)).status_code == 400
    assert await LogLevels(redis, "test").wanted() is None


def test_the_command_sets_and_shows_it(tmp_path: Path) -> None:
    def run(*arguments: str) -> str:
        done = CliRunner().invoke(app, ["log-level", *arguments, "--data-dir", str(tmp_path)])
        assert done.exit_code == 0, done.output
        return done.stdout

    with EmbeddedValkey(tmp_path / "queue"):
        assert run() == "info, as configured\n"
        assert "debug until " in run("debug", "--minutes", "1")
        assert "by cli:" in run().replace("\n", " ")
        assert run("configured").endswith("info, as configured\n")
