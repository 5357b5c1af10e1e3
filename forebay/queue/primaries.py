"""Who is the primary now: asked of Sentinels, or of a cluster, at every connection that is dialled.

So everything above holds an ordinary client, and a failover is for it a connection that broke.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, Protocol

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from forebay.queue.address import HostPort, shown
from forebay.queue.errors import WrongServerKindError
from forebay.queue.patience import Patience

REMEMBER_S: Final = 0.2
"""Connections that are dialled at once share one look."""

LOOK_S: Final = 0.7
"""Longest look; the rest of a door operation's time is for the operation."""

MAX_NODES: Final = 64

NodeClient = Callable[[HostPort], Redis]


class Primary(Protocol):
    """Finds one primary."""

    async def find(self) -> HostPort:
        """Return where it is. Raises RedisConnectionError where nobody says."""
        ...

    def forget(self) -> None:
        """It is not there any more: ask again next time."""
        ...

    async def aclose(self) -> None:
        """Close the connections for asking."""
        ...


class SentinelPrimary:
    """The primary of ``service`` as the first of the Sentinels to answer names it."""

    def __init__(self, sentinels: Sequence[HostPort], service: str, client: NodeClient) -> None:
        self._service = service
        self._asked = _Asked(sentinels, client)

    async def find(self) -> HostPort:
        """Return where the primary is. Raises RedisConnectionError, WrongServerKindError."""
        found: HostPort = await self._asked.ask(self._ask)
        return found

    async def _ask(self, _: HostPort, sentinel: Redis) -> HostPort:
        try:
            reply = await _send(sentinel, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service)
        except ResponseError as error:
            if "unknown command" in str(error).lower():
                raise WrongServerKindError(
                    "The URL names Sentinels, and what answers is none.",
                    mend="Name the Sentinels' ports (usually 26379), or use redis:// for one "
                    "server.",
                ) from error
            raise
        if not reply:
            raise RedisConnectionError(f"the Sentinels know no service {self._service!r}")
        return str(reply[0]), int(reply[1])

    def forget(self) -> None:
        """Ask again next time."""
        self._asked.forget()

    async def aclose(self) -> None:
        """Close the connections to the Sentinels."""
        await self._asked.aclose()


class ClusterMap:
    """Who has which slots of a cluster, as the first of its nodes to answer says."""

    def __init__(self, seeds: Sequence[HostPort], client: NodeClient) -> None:
        self._asked = _Asked(seeds, client)

    async def nodes(self) -> list[HostPort]:
        """Return the primaries and the replicas, primaries first."""
        ranges = await self._ranges()
        primaries = [one for _, _, (one, *_) in ranges]
        replicas = [one for _, _, (_, *rest) in ranges for one in rest]
        return list(dict.fromkeys([*primaries, *replicas]))

    async def primaries(self) -> list[HostPort]:
        """Return the primaries."""
        return list(dict.fromkeys(nodes[0] for _, _, nodes in await self._ranges()))

    async def owner(self, slot: int) -> HostPort:
        """Return the primary of a slot. Raises RedisConnectionError where it has none."""
        for first, last, nodes in await self._ranges():
            if first <= slot <= last:
                return nodes[0]
        raise RedisConnectionError(f"slot {slot} of the cluster is served by no node")

    def forget(self) -> None:
        """Ask again next time."""
        self._asked.forget()

    async def aclose(self) -> None:
        """Close the connections for asking."""
        await self._asked.aclose()

    async def _ranges(self) -> list[tuple[int, int, list[HostPort]]]:
        ranges: list[tuple[int, int, list[HostPort]]] = await self._asked.ask(self._ask)
        self._asked.learn([node for _, _, nodes in ranges for node in nodes])
        return ranges

    async def _ask(self, node: HostPort, client: Redis) -> list[tuple[int, int, list[HostPort]]]:
        try:
            reply = await _send(client, "CLUSTER", "SLOTS")
        except ResponseError as error:
            if "cluster support disabled" in str(error):
                raise WrongServerKindError(
                    "The URL names a cluster, and the server is not in cluster mode.",
                    mend="Use redis:// (or redis+sentinel://) in queue_url.",
                ) from error
            raise
        ranges = [
            (int(first), int(last), [(str(one[0] or node[0]), int(one[1])) for one in nodes])
            for first, last, *nodes in reply
        ]
        if not ranges:
            raise RedisConnectionError(f"{shown(node)} knows of no node that serves slots")
        return ranges


class SlotPrimary:
    """The primary of one slot of a cluster."""

    def __init__(self, cluster: ClusterMap, slot: int) -> None:
        self._cluster = cluster
        self._slot = slot

    async def find(self) -> HostPort:
        """Return where it is. Raises RedisConnectionError, WrongServerKindError."""
        return await self._cluster.owner(self._slot)

    def forget(self) -> None:
        """Ask again next time."""
        self._cluster.forget()

    async def aclose(self) -> None:
        """Close the connections for asking, which other slots may open again."""
        await self._cluster.aclose()


class _Asked:
    """Asks several servers the same at once and takes the first answer, for a moment for all."""

    def __init__(self, seeds: Sequence[HostPort], client: NodeClient) -> None:
        self._seeds = tuple(seeds)
        self._client = client
        self._clients: dict[HostPort, Redis] = {}
        self._known: tuple[HostPort, ...] = self._seeds
        self._answer: Any = None
        self._answered_at = -REMEMBER_S
        self._one_at_a_time = asyncio.Lock()

    async def ask(self, question: Callable[[HostPort, Redis], Coroutine[Any, Any, Any]]) -> Any:
        """Return the first answer. Raises RedisConnectionError where there is none."""
        async with self._one_at_a_time:
            if time.monotonic() - self._answered_at >= REMEMBER_S:
                self._answer = await self._first_answer(question)
                self._answered_at = time.monotonic()
            return self._answer

    def forget(self) -> None:
        """Ask again next time."""
        self._answered_at = -REMEMBER_S

    def learn(self, places: Sequence[HostPort]) -> None:
        """Ask these too from now on; the first ones stay."""
        self._known = tuple(dict.fromkeys([*self._seeds, *places]))[:MAX_NODES]

    async def aclose(self) -> None:
        """Close every connection."""
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.aclose()

    async def _first_answer(
        self, question: Callable[[HostPort, Redis], Coroutine[Any, Any, Any]]
    ) -> Any:
        await self._close_unknown()
        asking = [
            asyncio.ensure_future(question(place, self._client_of(place))) for place in self._known
        ]
        troubles: list[BaseException] = []
        try:
            async with Patience(LOOK_S):
                for next_answer in asyncio.as_completed(asking):
                    try:
                        return await next_answer
                    except (RedisError, OSError) as error:
                        troubles.append(error)
        except TimeoutError:
            pass  # the others have said what they had to say
        finally:
            for one in asking:
                one.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        names = ", ".join(shown(place) for place in self._known)
        why = "; ".join(dict.fromkeys(str(one) for one in troubles)) or "no answer in time"
        raise RedisConnectionError(f"none of {names} says where the primary is: {why}") from (
            troubles[0] if troubles else None
        )

    def _client_of(self, place: HostPort) -> Redis:
        if place not in self._clients:
            self._clients[place] = self._client(place)
        return self._clients[place]

    async def _close_unknown(self) -> None:
        for place in set(self._clients) - set(self._known):
            await self._clients.pop(place).aclose()


async def _send(client: Redis, *command: str) -> Any:
    """Send a command in parts, so that its reply comes as it is.

    redis-py's own reading of these replies has changed between its releases.
    """
    return await client.execute_command(*command)  # type: ignore[no-untyped-call]
