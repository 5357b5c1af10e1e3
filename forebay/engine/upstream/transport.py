"""HTTP to the server: the one module of the engine that knows a network."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Final

import httpx

from forebay.core.trace import Trace
from forebay.engine.upstream.faults import (
    BrokenOffError,
    UnreachableError,
    UpstreamFaultError,
    fault_of_response,
)

_MOST_BODY_BYTES: Final = 2**20
"""Of a list of models, or of an error's text."""

_CHECK_LIMIT_S: Final = 15.0
"""For the whole of a small request: health, the list of models."""

_NOT_OFFERED: Final = frozenset({404, 405, 501})
"""What servers without a list of models answer there."""

_MOST_LISTED: Final = 10

_NETWORK_ERRORS: Final = (httpx.TransportError, ssl.SSLError)
"""A record that TLS cannot read comes through httpx as it is."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where the server is. ``url``: with or without ``/v1``; times in seconds.

    ``model``: empty asks the server. ``idle_s``: the longest silence, that before the first byte of
    an answer included.
    """

    url: str
    model: str = ""
    api_key: str = field(default="", repr=False)
    connect_s: float = 5.0
    idle_s: float = 120.0

    @property
    def root(self) -> str:
        """The address without the API's version."""
        return re.sub(r"/v\d+$", "", self.url.rstrip("/"))

    @property
    def api(self) -> str:
        """The address of the OpenAI API."""
        url = self.url.rstrip("/")
        return url if url != self.root else f"{url}/v1"

    @property
    def hidden(self) -> tuple[str, ...]:
        """Words that no client may be told."""
        return (self.api_key, httpx.URL(self.url).host)


class Transport:
    """A server's HTTP connection pool. Every method raises ``UpstreamFaultError``.

    A connection serves one request: a kept one that the server has closed meanwhile could not be
    told from a server that dies of the request. How many there are is bounded by the callers.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        headers = {"Accept-Encoding": "identity"}  # what comes is bounded as it comes
        if address.api_key:
            headers["Authorization"] = f"Bearer {address.api_key}"
        self._client = httpx.AsyncClient(
            headers=headers,
            timeout=httpx.Timeout(address.idle_s, connect=address.connect_s),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
            verify=httpx.create_ssl_context(),
            # a balancer's cookie would send every request to one of the servers behind it
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            event_hooks={"response": [_lead_nowhere]},
            trust_env=False,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def check(self) -> None:
        """Return when the server is there and does not say that it is ill.

        Asked is ``/health`` and, where that is no such page, ``/v1/models``, which some lack too.
        """
        status, _, body = await self._get(f"{self.address.root}/health")
        if _says_ill(status):
            raise self._refusal(status, None, body)
        if httpx.codes.is_success(status):
            return
        status, retry_after, body = await self._get(f"{self.address.api}/models")
        if not (httpx.codes.is_success(status) or status in _NOT_OFFERED):
            raise self._refusal(status, retry_after, body)

    async def models(self) -> list[str]:
        """Return a name of each model that the server has; its names for one model are one."""
        status, retry_after, body = await self._get(f"{self.address.api}/models")
        if status != httpx.codes.OK:
            raise self._refusal(status, retry_after, body)
        try:
            names: dict[str, str] = {}
            for card in json.loads(body)["data"]:
                name = str(card["id"])
                names.setdefault(str(card.get("root") or name), name)
        except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
            raise BrokenOffError("the upstream's list of models has no known form") from error
        return list(names.values())

    async def model(self) -> str:
        """Return the model to ask for: as set, else the server's only one."""
        if self.address.model:
            return self.address.model
        names = await self.models()
        if len(names) == 1:
            return names[0]
        listed = ", ".join(names[:_MOST_LISTED]) or "none"
        raise UpstreamFaultError(
            "the upstream's model is not known",
            f"it has {len(names)} models ({listed}): set upstream_model to one of them",
        )

    async def chat(self, body: bytes, trace: Trace | None = None) -> AsyncGenerator[bytes]:
        """Post a streamed chat completion and yield the stream's bytes as they come.

        Leaving the generator closes the connection, which ends the work upstream.
        ``trace``: what the request belongs to; each sending is a step of its own.
        """
        url = f"{self.address.api}/chat/completions"
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
        if trace is not None:
            headers["traceparent"] = str(trace.child())
            if trace.state:
                headers["tracestate"] = trace.state
        try:
            async with self._client.stream("POST", url, content=body, headers=headers) as response:
                if response.status_code != httpx.codes.OK:
                    raise self._refusal(
                        response.status_code,
                        response.headers.get("retry-after"),
                        await _bounded_body(response),
                    )
                kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
                if kind != "text/event-stream":
                    raise BrokenOffError("the upstream does not stream", f"it sent {kind[:80]!r}")
                async for chunk in response.aiter_raw():
                    yield chunk
        except _NETWORK_ERRORS as error:
            raise self._fault(error) from error

    async def _get(self, url: str) -> tuple[int, str | None, bytes]:
        try:
            async with (
                asyncio.timeout(_CHECK_LIMIT_S),
                self._client.stream("GET", url) as response,
            ):
                body = await _bounded_body(response)
                return response.status_code, response.headers.get("retry-after"), body
        except _NETWORK_ERRORS as error:
            raise self._fault(error) from error
        except TimeoutError as error:
            raise BrokenOffError(f"the upstream was silent for {_CHECK_LIMIT_S:g} s") from error

    def _refusal(self, status: int, retry_after: str | None, body: bytes) -> UpstreamFaultError:
        return fault_of_response(status, retry_after, body, self.address.hidden)

    def _fault(self, error: Exception) -> UpstreamFaultError:
        detail = f"{self.address.url}: {type(error).__name__}: {error}"
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return UnreachableError("the upstream cannot be reached", detail)
        if isinstance(error, httpx.TimeoutException):
            return BrokenOffError(f"the upstream was silent for {self.address.idle_s:g} s", detail)
        return BrokenOffError("the upstream closed the connection", detail)


def _says_ill(status: int) -> bool:
    """Whether it is a server's word on how it is; other errors say that it has no such page."""
    return status == httpx.codes.TOO_MANY_REQUESTS or (
        httpx.codes.is_server_error(status) and status not in _NOT_OFFERED
    )


async def _lead_nowhere(response: httpx.Response) -> None:
    """Take out where a redirect leads: none is followed, and one that is no address is an error."""
    response.headers.pop("location", None)


async def _bounded_body(response: httpx.Response) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > _MOST_BODY_BYTES:
            break
    return bytes(body[:_MOST_BODY_BYTES])
