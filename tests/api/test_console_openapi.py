"""The console's routes before a tool that believes every word of their description."""

from __future__ import annotations

from pathlib import Path

from redis.asyncio import Redis

from forebay.access.caller import Scope
from forebay.admission.pool import DecoderPool
from tests.access.doors import guarded, make_key
from tests.api.schemathesis_run import finds_nothing
from tests.api.test_console import process, seen


async def test_schemathesis_finds_nothing_with_an_administrators_key(
    redis: Redis, tmp_path: Path, decoders: DecoderPool
) -> None:
    async with (
        process(redis, tmp_path) as desk,
        guarded(redis, tmp_path, decoders, console=desk) as (door, access),
    ):
        await seen(lambda: desk.pulse.now is not None)
        key = await make_key(access, Scope.ADMIN)
        await finds_nothing(
            door.url,
            tmp_path,
            *("--include-path-regex", r"^/v1/admin/(now|series|workers|tasks|limits|dead-letters)"),
            *("--header", f"Authorization: Bearer {key}"),
            *("--phases", "examples,coverage,fuzzing"),
            # a guesser is soon told 429; tests/access/test_described.py looks who is let in
            *("--exclude-checks", "ignored_auth"),
        )
