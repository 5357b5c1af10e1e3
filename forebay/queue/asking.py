"""One command and its reply, by the shortest way through a client's pool."""

from __future__ import annotations

from typing import Any

from hiredis import pack_command
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError


async def ask(redis: Redis, *words: str | float | bytes) -> Any:
    """Send a command that may be sent twice and return its reply.

    The client's own ``execute_command`` spends more on every command than the server does on most:
    on telemetry that is off, on a look at every argument. So the words are packed here and go
    straight to one of the pool's connections. Only where that one turns out to be broken is the
    client asked, with its retries. Redis errors come through as they are.
    """
    pool: Any = redis.connection_pool
    connection = await pool.get_connection()
    try:
        packed = pack_command(words)  # type: ignore[arg-type]  # its stub has a tuple of one
        if _is_plain(connection):
            return await _exchange(connection, packed)
        await connection.send_packed_command(packed, check_health=False)
        return await connection.read_response()
    except RedisConnectionError:
        pass  # it is closed by now; the pool dials it anew at its next use
    finally:
        await pool.release(connection)
    return await redis.execute_command(*words)  # type: ignore[no-untyped-call]


def _is_plain(connection: Any) -> bool:
    """Whether it is up and looks at no reply itself: then nothing of its own is passed over."""
    up = not connection._writer.is_closing()  # noqa: SLF001
    return up and type(connection).read_response is AbstractConnection.read_response


async def _exchange(connection: Any, packed: bytes) -> Any:
    """Do what the connection's own methods do, without their five coroutines more.

    A connection carries one command at a time, so there is nothing to drain: the reply says that
    all was read.
    """
    try:
        connection._writer.write(packed)  # noqa: SLF001
        reply = await connection._parser.read_response()  # noqa: SLF001
    except OSError as error:
        await connection.disconnect(nowait=True)
        raise RedisConnectionError(f"the connection broke: {error}") from error
    except BaseException:
        await connection.disconnect(nowait=True)  # a late reply must not be the next one's
        raise
    if isinstance(reply, ResponseError):
        raise reply
    return reply
