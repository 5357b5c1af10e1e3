"""The queue's server goes away under a running stack: clients are told, and nothing is lost.

Three ways to go: silence (SIGSTOP), an end (SIGKILL), a network that swallows everything.
"""

from __future__ import annotations

import base64
import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.stack import ServeProcess, _picture, serving
from tests.queue.servers import Node, free_ports, server

TOLD_S = 2.0
"""A client is to be told within a second; a worker's patience is three. The rest is the machine."""

LONG_ANSWER = 1500


class Relay:
    """A TCP way to a port that can turn into a black hole: connections stay, bytes do not come."""

    def __init__(self, to_port: int) -> None:
        self._to = to_port
        self._open = threading.Event()
        self._open.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def swallow(self) -> None:
        self._open.clear()

    def let_through(self) -> None:
        self._open.set()

    def close(self) -> None:
        self._open.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(near,), daemon=True).start()

    def _carry(self, near: socket.socket) -> None:
        with near, suppress(OSError), socket.create_connection(("127.0.0.1", self._to)) as far:
            back = threading.Thread(target=self._copy, args=(far, near), daemon=True)
            back.start()
            self._copy(near, far)
            back.join()

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while content := source.recv(65536):
                self._open.wait()
                target.sendall(content)
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


class Outage:
    """The server behind the stack, and the ways in which it goes away and comes back."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (self._port,) = free_ports(1)
        self._running = ExitStack()
        self._node = self._start()
        self._relay = Relay(self._port)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._relay.port}"

    def begin(self, kind: str) -> None:
        if kind == "silence":
            self._node.send(signal.SIGSTOP)
        elif kind == "end":
            self._node.send(signal.SIGKILL)
        else:
            self._relay.swallow()

    def end(self, kind: str) -> None:
        if kind == "silence":
            self._node.send(signal.SIGCONT)
        elif kind == "end":
            self._running.close()
            self._node = self._start()
        else:
            self._relay.let_through()

    def close(self) -> None:
        self._relay.close()
        self._running.close()

    def _start(self) -> Node:
        return self._running.enter_context(
            server(self._folder, "appendonly yes", "appendfsync always", port=self._port)
        )


@pytest.fixture(scope="module")
def outage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outage]:
    outage = Outage(tmp_path_factory.mktemp("server"))
    yield outage
    outage.close()


@pytest.fixture(scope="module")
def stack(
    model: Path, outage: Outage, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServeProcess]:
    folder = tmp_path_factory.mktemp("stack")
    with serving(model, folder, "--queue-url", outage.url) as stack:
        yield stack


def chat(stack: ServeProcess, **more: Any) -> dict[str, Any]:
    picture = base64.b64encode(_picture(3)).decode()
    parts = [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}},
        {"type": "text", "text": "what is it"},
    ]
    model = stack.client.get("/v1/models").json()["data"][0]["id"]
    return {
        "model": model,
        "messages": [{"role": "user", "content": parts}],
        "max_tokens": LONG_ANSWER,
        "temperature": 0,
        **more,
    }


class Streaming:
    """A client that reads an answer of its own run as it comes, on a thread."""

    def __init__(self, stack: ServeProcess) -> None:
        self.text = ""
        self.end: str | None = None
        self.done = False
        self._url = stack.url
        self._body = chat(stack, stream=True)
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        with (
            httpx.Client(base_url=self._url, timeout=60, trust_env=False) as client,
            client.stream(
                "POST",
                "/v1/chat/completions",
                json=self._body,
                headers={"Cache-Control": "no-store"},
            ) as response,
        ):
            for line in response.iter_lines():
                if line == "data: [DONE]":
                    self.done = True
                elif line.startswith("data: "):
                    (choice,) = json.loads(line[6:])["choices"]
                    self.text += choice["delta"].get("content") or ""
                    self.end = choice["finish_reason"] or self.end

    def join(self) -> None:
        self._thread.join(120)
        assert not self._thread.is_alive()


@contextmanager
def away(outage: Outage, kind: str) -> Iterator[None]:
    outage.begin(kind)
    try:
        yield
    finally:
        outage.end(kind)


def refused(stack: ServeProcess, method: str, path: str, **more: Any) -> float:
    """Send a request that must be refused as unavailable; return how long that took, in s."""
    began = time.monotonic()
    reply = stack.client.request(method, path, **more)
    took = time.monotonic() - began
    assert reply.status_code == 503, reply.text
    assert float(reply.headers["retry-after"]) >= 1
    assert "queue_unavailable" in reply.text
    return took


@pytest.mark.parametrize("kind", ["silence", "end", "black hole"])
def test_clients_are_told_at_once_and_a_stream_goes_on_when_it_is_back(
    stack: ServeProcess, outage: Outage, kind: str
) -> None:
    whole = stack.client.post("/v1/chat/completions", json=chat(stack)).json()
    wanted = whole["choices"][0]["message"]["content"]
    dropped = stack.output().count("lease_dropped")
    streaming = Streaming(stack)
    stack.until(lambda: streaming.text, "first text")
    assert not streaming.done, "the answer was over too soon to be struck"
    with away(outage, kind):
        files = {"image": ("a.png", _picture(1), "image/png")}
        times = [
            refused(stack, "POST", "/predict", files=files, data={"prompt": "what"}),
            refused(stack, "GET", "/result", params={"task_id": "0"}),
            *(refused(stack, "POST", "/v1/chat/completions", json=chat(stack)) for _ in range(5)),
        ]
        assert stack.client.get("/healthz").status_code == 200
        assert stack.client.get("/ready").status_code == 503
        print(f"{kind}: told after {[round(one, 3) for one in times]} s")
    assert max(times) < TOLD_S
    streaming.join()
    assert streaming.done
    assert streaming.end == "length"
    assert streaming.text == wanted
    assert stack.output().count("lease_dropped") == dropped, "the worker let its work go"
    stack.until(lambda: stack.client.get("/ready").status_code == 200, "readiness")
    stack.await_answers(stack.submit(3, f"what is it after {kind}"))


def test_a_queue_in_partitions_serves_a_whole_stack(model: Path, tmp_path: Path) -> None:
    with serving(model, tmp_path, "--set", "queue_partitions=3") as stack:
        task_ids = stack.submit(6)
        assert {one.partition("-")[0] for one in task_ids} <= {"0", "1", "2"}
        stack.await_answers(task_ids)
        streaming = Streaming(stack)
        streaming.join()
        assert streaming.done
        assert streaming.end == "length"
