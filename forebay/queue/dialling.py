"""Connections and their pool: who is dialled, with which certificate, and when to dial anew."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final
from weakref import WeakSet

from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.credentials import CredentialProvider
from redis.exceptions import AuthenticationError, MovedError, ReadOnlyError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

from forebay.queue.address import Form, Login, ServerAddress, Tls, shown
from forebay.queue.breaker import Breaker
from forebay.queue.operation import current_operation
from forebay.queue.patience import Patience
from forebay.queue.pool import SwiftPool
from forebay.queue.primaries import Primary

MAX_CONNECTIONS: Final = 64
POOL_WAIT_S: Final = 3.0
CONNECT_S: Final = 1.0
CLOSE_S: Final = 5.0
"""Longest orderly end of a connection; also the library's own, blunt bound on connecting."""


class LoginCredentials(CredentialProvider):
    """Name and password, the latter from its file as that is now."""

    def __init__(self, login: Login) -> None:
        self._login = login

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """Return the arguments of AUTH. Raises AuthenticationError, never with the password."""
        password = self._login.password
        if (file := self._login.password_file) is not None:
            try:
                password = file.read_text(encoding="utf-8").strip("\r\n")
            except (OSError, UnicodeError) as error:
                why = error.strerror if isinstance(error, OSError) else "not UTF-8"
                raise AuthenticationError(f"the password's file {file}: {why}") from None
        if self._login.username:
            return self._login.username, password or ""
        return (password or "",)


def credentials_of(login: Login) -> CredentialProvider | None:
    """Return who we are, or None where nothing is known of it."""
    known = login.username or login.password or login.password_file
    return LoginCredentials(login) if known else None


def tls_options(tls: Tls) -> dict[str, Any]:
    """Return what redis-py wants to know of TLS."""
    return {
        "ssl_cert_reqs": "required" if tls.verify else "none",
        "ssl_check_hostname": tls.verify,
        "ssl_ca_certs": str(tls.ca) if tls.ca else None,
        "ssl_certfile": str(tls.cert) if tls.cert else None,
        "ssl_keyfile": str(tls.key) if tls.key else None,
    }


class AliveConnection(AbstractConnection):
    """Says of a connection that was reset while it was idle that it is broken; dials with patience.

    redis-py asks only for an orderly end, and so writes to it; uvloop's word for that is a
    RuntimeError, which nothing would take for a lost connection. Its bound on dialling counts this
    process's own stalls.
    """

    async def _connect(self) -> None:
        async with Patience(CONNECT_S):
            await super()._connect()  # type: ignore[no-untyped-call,safe-super]

    async def send_packed_command(
        self, command: bytes | str | Iterable[bytes], check_health: bool = True
    ) -> None:
        """Send what is packed. Raises RedisConnectionError; nothing was sent then."""
        if self._writer is not None and self._writer.transport.is_closing():
            await self.disconnect(nowait=True)
            raise RedisConnectionError("the connection was reset while nothing was asked on it")
        await super().send_packed_command(command, check_health)


class HostConnection(AliveConnection, Connection):
    """A connection to a host's port."""


class HostSSLConnection(AliveConnection, SSLConnection):
    """The same over TLS."""


class SocketConnection(AliveConnection, UnixDomainSocketConnection):
    """A connection to a socket of this machine."""


class PrimaryConnection(HostConnection):
    """A connection to whoever is the primary at the time that it is dialled."""

    def __init__(self, *, primary: Primary, ask_role: bool, **options: Any) -> None:
        super().__init__(**options)
        self._primary = primary
        self._ask_role = ask_role

    async def _connect(self) -> None:
        self.host, self.port = await self._primary.find()
        try:
            await super()._connect()
        except (OSError, TimeoutError):
            self._primary.forget()
            raise

    async def on_connect_check_health(self, check_health: bool = True) -> None:
        """Greet the server. A Sentinel that has not heard of a failover may name the old one."""
        await super().on_connect_check_health(check_health)
        if not self._ask_role:
            return
        await self.send_command("ROLE", check_health=False)
        role = await self.read_response()
        if role[0] not in ("master", b"master"):
            await self._gone(f"{shown((self.host, self.port))} is a replica now")

    async def read_response(self, *args: Any, **options: Any) -> Any:
        """Return a reply; one that says that this is not the primary breaks the connection."""
        try:
            return await super().read_response(*args, **options)
        except (MovedError, ReadOnlyError) as error:
            await self._gone(str(error))
        except ResponseError as error:
            if "UNBLOCKED" not in str(error):  # a blocked read, when a primary steps down
                raise
            await self._gone(str(error))

    async def _gone(self, why: str) -> None:
        self._primary.forget()
        await self.disconnect(nowait=True)
        raise RedisConnectionError(f"the primary has changed: {why}")


class PrimarySSLConnection(PrimaryConnection, HostSSLConnection):
    """The same over TLS."""


class LinePool(SwiftPool):
    """The connections of one line: bounded, watched by its breaker, with its own patience."""

    def __init__(
        self,
        *,
        answer_s: float,
        address: ServerAddress,
        max_connections: int,
        primary: Primary | None = None,
        node_of_cluster: bool = False,
        **options: Any,
    ) -> None:
        if primary is not None:
            options |= {"primary": primary, "ask_role": address.form is Form.SENTINEL}
        super().__init__(max_connections=max_connections, timeout=POOL_WAIT_S, **options)
        self.answer_s = answer_s
        self.address = address
        self.node_of_cluster = node_of_cluster
        self._primary = primary
        self.breaker = Breaker()
        self._stale: WeakSet[AbstractConnection] = WeakSet()

    async def get_connection(self, *args: Any, **options: Any) -> AbstractConnection:
        """Return a connection to use. Raises ServerAwayError while the breaker is open."""
        if (operation := current_operation()) is not None:
            operation.join(self)
        return await super().get_connection(*args, **options)

    def drop_idle(self) -> None:
        """Dial anew before the next use of what is idle now."""
        self._stale.update(self._available_connections)

    async def ensure_connection(self, connection: AbstractConnection) -> None:
        """Make a connection ready for use."""
        if connection in self._stale:
            self._stale.discard(connection)
            await connection.disconnect(nowait=True)
        await super().ensure_connection(connection)

    async def disconnect(self, inuse_connections: bool = True) -> None:
        """Close the connections, those for asking who is the primary with them."""
        await super().disconnect(inuse_connections)
        if self._primary is not None and inuse_connections:
            await self._primary.aclose()
