"""Refuses a server that could lose accepted tasks or cannot serve, with the mend."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import (
    AuthenticationError,
    InvalidResponse,
    NoPermissionError,
    ResponseError,
)

from forebay.core.errors import QueueUnavailableError
from forebay.queue.address import SERVER_PORT, Form, ServerAddress
from forebay.queue.dialling import LinePool
from forebay.queue.errors import (
    EvictionPolicyError,
    QueueSetupError,
    ReadOnlyServerError,
    ServerLoginError,
    ServerRightsError,
    ServerTlsError,
    ServerTooOldError,
    WrongServerKindError,
)
from forebay.queue.operation import unavailable

NOEVICTION = "CONFIG SET maxmemory-policy noeviction"


async def verify_server(redis: Redis, *, replica_is_well: bool = False) -> None:
    """Refuse a server that could lose accepted tasks, that is too old, or that is of another kind.

    Raises QueueSetupError or QueueUnavailableError. ``replica_is_well``: this one is only to be
    a primary one day.
    """
    try:
        async with unavailable("verifying it"):
            about = await redis.info("server")
            _check_kind(about, redis.connection_pool)
            _check_version(str(about.get("redis_version", "0")))
            memory = await redis.info("memory")
            role = {} if replica_is_well else await redis.info("replication")
    except QueueUnavailableError as error:
        raise explained(error, _address_of(redis.connection_pool)) from error
    _check_policy(str(memory.get("maxmemory_policy", "noeviction")), redis.connection_pool)
    if role.get("role", "master") != "master":
        raise ReadOnlyServerError(
            f"The queue's server is a replica of {role.get('master_host')}:"
            f"{role.get('master_port')} and takes no writes.",
            mend="Put the primary into queue_url, or redis+sentinel://… so that it is found.",
        )


async def is_durable(redis: Redis) -> bool:
    """Return whether the server writes down what it accepts (AOF). Raises QueueUnavailableError."""
    async with unavailable("asking how it writes down"):
        about = await redis.info("persistence")
    return bool(about.get("aof_enabled"))


def _address_of(pool: Any) -> ServerAddress | None:
    return pool.address if isinstance(pool, LinePool) else None


def _check_kind(about: dict[str, Any], pool: Any) -> None:
    mode = about.get("server_mode") or about.get("redis_mode")  # Valkey's name, Redis's name
    address = _address_of(pool)
    form = address.form if address else None
    if mode == "sentinel":
        raise WrongServerKindError(
            "The queue_url leads to a Sentinel, which holds no tasks.",
            mend="Use the form redis+sentinel://HOST:PORT,HOST:PORT/SERVICE.",
        )
    if mode == "cluster" and form is Form.SINGLE and not pool.node_of_cluster:
        raise WrongServerKindError(
            "The queue_url names one server, and it is a node of a cluster.",
            mend="Use the form redis+cluster://HOST:PORT,HOST:PORT.",
        )


def _check_version(version: str) -> None:
    if int(version.split(".", maxsplit=1)[0]) < 7:
        raise ServerTooOldError(
            f"The queue's server is version {version}.", mend="Use Valkey, or Redis 7.0 or later."
        )


def _check_policy(policy: str, pool: Any) -> None:
    if policy == "noeviction":
        return
    address = _address_of(pool)
    named = f" ({address})" if address is not None and address.form is not Form.SENTINEL else ""
    raise EvictionPolicyError(
        f"The queue's server{named} has maxmemory-policy {policy}: it would lose accepted tasks.",
        mend=f"Run: {_cli(address)} {NOEVICTION}",
    )


def _cli(address: ServerAddress | None) -> str:
    if address is None or address.form is not Form.SINGLE:
        return "valkey-cli"
    if address.socket is not None:
        return f"valkey-cli -s {address.socket}"
    host, port = address.hosts[0]
    default = host in ("127.0.0.1", "localhost") and port == SERVER_PORT
    return "valkey-cli" if default else f"valkey-cli -h {host} -p {port}"


def explained(error: QueueUnavailableError, address: ServerAddress | None = None) -> Exception:
    """Return what the operator can mend, where that is why; else ``error``, with what it may be.

    For the time of a start: later the same may pass by itself.
    """
    for cause in _causes(error):
        if (found := _explanation(cause)) is not None:
            return found
    if address is not None and address.socket is None:
        # A plain server waits for the end of what it takes for a command; a TLS one hangs up.
        other = "redis://" if address.tls else "rediss://"
        speaks = "no TLS" if address.tls else "TLS"
        hint = f"Does it speak {speaks} on this port? Then use {other} (with +sentinel, +cluster)."
        return QueueUnavailableError(f"{error.message}. {hint}", retry_after=error.retry_after)
    return error


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__


def _explanation(cause: BaseException) -> QueueSetupError | None:
    found: QueueSetupError | None = None
    match cause:
        case QueueSetupError():
            found = cause
        case ResponseError() if _lacks_rights(cause):
            found = ServerRightsError(
                f"The queue's server does not let us: {cause}.",
                mend="`forebay queue acl` and `forebay doctor` print the ACL rule that it needs.",
            )
        case AuthenticationError():
            found = ServerLoginError(
                f"The queue's server does not take our login: {cause}.",
                mend="Set queue_username, and queue_password or queue_password_file.",
            )
        case ssl.SSLCertVerificationError():
            found = ServerTlsError(
                f"The queue server's certificate is not trusted: {cause.verify_message}.",
                mend="Set queue_tls_ca to the authority that signed it, and use the host's name "
                "that it is made out for.",
            )
        case ssl.SSLError():
            found = _tls_explanation(cause)
        case InvalidResponse():
            found = WrongServerKindError(
                "What answers at queue_url is not Valkey or Redis.",
                mend="Correct host and port; a port with TLS wants rediss://.",
            )
    return found


def _lacks_rights(cause: ResponseError) -> bool:
    """Whether a command was refused for its user's rights, by itself or inside of a function."""
    return isinstance(cause, NoPermissionError) or "ACL failure in script" in str(cause)


def _tls_explanation(error: ssl.SSLError) -> ServerTlsError:
    reason = error.reason or str(error)
    if reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
        mend = "It does not speak TLS on this port: use redis://, or its TLS port."
    elif "CERTIFICATE" in reason.upper():
        mend = "It wants a client certificate: set queue_tls_cert and queue_tls_key."
    else:
        mend = "Look at the certificates that queue_tls_ca, queue_tls_cert and queue_tls_key name."
    return ServerTlsError(f"TLS with the queue's server fails: {reason}.", mend=mend)
