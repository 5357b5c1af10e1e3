"""Real servers as operators run them: TLS, ACL, Sentinel, Cluster. Started and ended by a test."""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import redis

from forebay.queue.binaries import find_server_binary

T = TypeVar("T")
WAIT_S = 60.0
"""Bounds every wait; far above what any takes."""


def free_ports(count: int) -> list[int]:
    """Return ports that are free now, below those that the system gives out by itself.

    A cluster's nodes also listen 10,000 above their port.
    """
    found: list[int] = []
    candidate = 20_000 + os.getpid() % 5_000
    while len(found) < count:
        candidate += 1
        with socket.socket() as probe, socket.socket() as bus:
            try:
                probe.bind(("127.0.0.1", candidate))
                bus.bind(("127.0.0.1", candidate + 10_000))
            except OSError:
                continue
        found.append(candidate)
    return found


def until(look: Callable[[], T | None], what: str) -> T:
    """Return the first truthy thing that ``look`` sees; its connection errors are patience."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        with suppress(redis.RedisError, OSError):
            if found := look():
                return found
        time.sleep(0.05)
    raise AssertionError(f"no {what} in {WAIT_S:.0f} s")


@dataclass
class Node:
    """One server process on 127.0.0.1."""

    port: int
    process: subprocess.Popen[bytes]
    log: Path
    password: str | None = None
    options: dict[str, object] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def client(self) -> redis.Redis:
        return redis.Redis(
            port=self.port, decode_responses=True, password=self.password, socket_timeout=5,
            **self.options,
        )  # fmt: skip

    def run(self, *command: str | int) -> object:
        with self.client() as client:
            return client.execute_command(*command)

    def send(self, how: signal.Signals) -> None:
        self.process.send_signal(how)
        if how is signal.SIGKILL:
            self.process.wait(10)


@contextmanager
def server(
    folder: Path, *options: str, port: int | None = None, program: Path | None = None,
    mode: Sequence[str] = (), client: dict[str, object] | None = None,
) -> Iterator[Node]:  # fmt: skip
    """Run a server with a configuration of ``options`` lines, ended at the block's end."""
    port = port or free_ports(1)[0]
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "server.conf"
    lines = [f"port {port}", "bind 127.0.0.1", f"dir {folder}", "daemonize no"]
    if "--sentinel" not in mode:
        lines.append('save ""')
    # The last word on a setting wins, so options can overrule what stands above.
    config.write_text("\n".join([*lines, *options]) + "\n", encoding="utf-8")
    log = folder / "server.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [program or find_server_binary(), config, *mode],
            stdin=subprocess.DEVNULL, stdout=out, stderr=out,
        )  # fmt: skip
    node = Node(port, process, log, options=client or {})
    try:
        until(lambda: _answers(node), f"answer of the server in {folder}")
        yield node
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait(10)


def _answers(node: Node) -> bool:
    assert node.process.poll() is None, node.log.read_text("utf-8", "replace")
    try:
        with node.client() as client:
            return bool(client.ping())
    except (redis.AuthenticationError, redis.exceptions.NoPermissionError):
        return True


@dataclass
class SentinelGroup:
    """A primary, its replica, and three Sentinels of the service "queue"."""

    primary: Node
    replica: Node
    sentinels: list[Node]

    @property
    def url(self) -> str:
        places = ",".join(f"127.0.0.1:{one.port}" for one in self.sentinels)
        return f"redis+sentinel://{places}/queue"

    def named_port(self) -> int:
        """Return the port of the primary as the first Sentinel names it."""
        reply = self.sentinels[0].run("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "queue")
        return int(reply[1])  # type: ignore[index]


@contextmanager
def sentinel_group(folder: Path, *options: str) -> Iterator[SentinelGroup]:
    """Run the group until the block's end; ready when the block begins."""
    with ExitStack() as stack:
        primary_port, replica_port, *sentinel_ports = free_ports(5)
        primary = stack.enter_context(server(folder / "a", *options, port=primary_port))
        of = f"replicaof 127.0.0.1 {primary_port}"
        replica = stack.enter_context(server(folder / "b", of, *options, port=replica_port))
        lines = (
            f"sentinel monitor queue 127.0.0.1 {primary_port} 2",
            "sentinel down-after-milliseconds queue 1000",
            "sentinel failover-timeout queue 5000",
        )
        sentinels = [
            stack.enter_context(server(folder / f"s{i}", *lines, port=port, mode=["--sentinel"]))
            for i, port in enumerate(sentinel_ports)
        ]
        group = SentinelGroup(primary, replica, sentinels)
        until(lambda: _linked(replica), "replication")
        for one in sentinels:
            until(lambda one=one: _knows_all(one), "Sentinel that knows everyone")  # type: ignore[misc]
        yield group


def _linked(replica: Node) -> bool:
    with replica.client() as client:
        return client.info("replication")["master_link_status"] == "up"


def _knows_all(sentinel: Node) -> bool:
    with sentinel.client() as client:
        about = client.sentinel_master("queue")
    return about["num-other-sentinels"] == 2 and about["num-slaves"] == 1


@dataclass
class Cluster:
    """Three primaries, each with a replica."""

    nodes: list[Node]

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{one.port}" for one in self.nodes[:3])

    def owner(self, key: str) -> Node:
        """Return the primary of a key's slot, as a living node has it."""
        living = next(one for one in self.nodes if one.process.poll() is None)
        slot = int(living.run("CLUSTER", "KEYSLOT", key))  # type: ignore[call-overload]
        with living.client() as client:
            slots = client.execute_command("CLUSTER", "SLOTS")
        for first, last, (_, port, *_), *_ in slots:
            if int(first) <= slot <= int(last):
                return next(one for one in self.nodes if one.port == int(port))
        raise AssertionError(f"slot {slot} has no owner")


@contextmanager
def cluster(folder: Path, *options: str, replicas: bool = True) -> Iterator[Cluster]:
    """Run the cluster until the block's end; ready when the block begins."""
    lines = ("cluster-enabled yes", "cluster-node-timeout 2000", *options)
    count = 6 if replicas else 3
    with ExitStack() as stack:
        nodes = [
            stack.enter_context(server(folder / f"n{i}", *lines, port=port))
            for i, port in enumerate(free_ports(count))
        ]
        step = 16384 // 3
        for i, node in enumerate(nodes[:3]):
            node.run("CLUSTER", "SET-CONFIG-EPOCH", i + 1)
            last = 16383 if i == 2 else (i + 1) * step - 1
            node.run("CLUSTER", "ADDSLOTSRANGE", i * step, last)
        for node in nodes[1:]:
            node.run("CLUSTER", "MEET", "127.0.0.1", nodes[0].port)
        for node in nodes:
            until(lambda node=node: _knows(node, count), "node that knows all")  # type: ignore[misc]
        for primary, replica in zip(nodes[:3], nodes[3:], strict=False):
            replica.run("CLUSTER", "REPLICATE", str(primary.run("CLUSTER", "MYID")))
        for replica in nodes[3:]:
            until(lambda replica=replica: _linked(replica), "replication")  # type: ignore[misc]
        for node in nodes:
            until(lambda node=node: _is_ok(node), "cluster that serves all slots")  # type: ignore[misc]
        yield Cluster(nodes)


def _knows(node: Node, count: int) -> bool:
    return f"cluster_known_nodes:{count}" in str(node.run("CLUSTER", "INFO"))


def _is_ok(node: Node) -> bool:
    return "cluster_state:ok" in str(node.run("CLUSTER", "INFO"))


@dataclass(frozen=True)
class Certificates:
    """PEM files: an authority, a server's and a client's pair, and an authority of others."""

    ca: Path
    server_cert: Path
    server_key: Path
    client_cert: Path
    client_key: Path
    other_ca: Path


def make_certificates(folder: Path) -> Certificates:
    """Make certificates for localhost and 127.0.0.1 with the openssl program."""
    folder.mkdir(parents=True, exist_ok=True)

    def openssl(*arguments: str | Path) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=folder)

    def authority(name: str) -> Path:
        openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-keyout", f"{name}.key", "-out", f"{name}.crt", "-days", "2", "-subj", f"/CN={name}",
        )  # fmt: skip
        return folder / f"{name}.crt"

    def signed(name: str) -> tuple[Path, Path]:
        (folder / f"{name}.ext").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        openssl(
            "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
            f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}",
        )  # fmt: skip
        openssl(
            "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key",
            "-CAcreateserial", "-out", f"{name}.crt", "-days", "2", "-extfile", f"{name}.ext",
        )  # fmt: skip
        return folder / f"{name}.crt", folder / f"{name}.key"

    ca = authority("ca")
    server_pair, client_pair = signed("server"), signed("client")
    return Certificates(ca, *server_pair, *client_pair, other_ca=authority("other"))


def tls_program() -> Path | None:
    """Return a server program with TLS built in, where this machine has one."""
    for name in ("valkey-server", "redis-server"):
        if (found := shutil.which(name)) is None:
            continue
        probe = subprocess.run(
            [found, "--port", "0", "--tls-port", "1", "--tls-cert-file", "/nonexistent"],
            capture_output=True, text=True, check=False, timeout=20,
        )  # fmt: skip
        if "Missing implement" not in probe.stdout and "TLS support" not in probe.stdout:
            return Path(found)
    return None


@contextmanager
def tls_server(
    folder: Path, certificates: Certificates, *options: str, ask_client: bool = False
) -> Iterator[int]:
    """Run a server that speaks TLS; yield its port.

    The packaged program has no TLS: where no other is installed, a TLS end stands before it, as
    stunnel would.
    """
    program = tls_program()
    if program is None:
        with server(folder, *options) as node, tls_end(node.port, certificates, ask_client) as port:
            yield port
        return
    port, plain = free_ports(2)
    lines = (
        f"tls-port {port}",
        f"tls-cert-file {certificates.server_cert}",
        f"tls-key-file {certificates.server_key}",
        f"tls-ca-cert-file {certificates.ca}",
        f"tls-auth-clients {'yes' if ask_client else 'no'}",
    )
    with server(folder, *lines, *options, port=plain, program=program):
        yield port


@contextmanager
def tls_end(to_port: int, certificates: Certificates, ask_client: bool) -> Iterator[int]:
    """Take TLS connections and hand their bytes on to ``to_port``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server_cert, certificates.server_key)
    if ask_client:
        context.load_verify_locations(certificates.ca)
        context.verify_mode = ssl.CERT_REQUIRED
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                raw, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(raw,), daemon=True).start()

    def serve(raw: socket.socket) -> None:
        raw.settimeout(30)
        with (
            suppress(OSError),
            context.wrap_socket(raw, server_side=True) as near,
            socket.create_connection(("127.0.0.1", to_port)) as far,
        ):
            _relay(near, far)

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.close()


def _relay(near: ssl.SSLSocket, far: socket.socket) -> None:
    """Copy both ways on one thread: a TLS socket is not for two."""
    near.setblocking(False)
    while True:
        if not near.pending():
            select.select([near, far], [], [], 1.0)
        with suppress(ssl.SSLWantReadError):
            if not (sent := near.recv(65536)):
                return
            far.sendall(sent)
        if select.select([far], [], [], 0)[0]:
            if not (reply := far.recv(65536)):
                return
            near.setblocking(True)
            near.sendall(reply)
            near.setblocking(False)
