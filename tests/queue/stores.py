"""A real server that speaks S3, for tests."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from forebay.queue.blobs_s3 import Bucket, S3Blobs
from forebay.queue.errors import BlobStoreSetupError

KEYS = {"writer": ("key1", "secret1"), "reader": ("key2", "secret2")}
ACTIONS = {"writer": ["Admin", "Read", "List", "Write"], "reader": ["Read", "List"]}
VOLUME_MB = 64


def free_ports(count: int) -> list[int]:
    """Return ports whose number plus 10,000 is free as well: the server takes both."""
    found: list[int] = []
    for port in range(20_000 + os.getpid() % 10_000, 50_000):
        if all(_is_free(one) for one in (port, port + 10_000)):
            found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError("no free ports")


def _is_free(port: int) -> bool:
    with socket.socket() as one:
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class S3Server:
    """SeaweedFS with room for one volume. ``bucket(...)`` names a bucket in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.master, self.volume, self.filer, self.port = free_ports(4)
        self.weed = Path(sys.executable).with_name("weed")

    def bucket(
        self, name: str = "pictures", who: str = "writer", prefix: str = "some/where"
    ) -> Bucket:
        key_id, secret = KEYS[who]
        return Bucket(
            name,
            prefix,
            endpoint=f"http://127.0.0.1:{self.port}",
            region="us-east-1",
            key_id=key_id,
            secret=secret,
        )

    @contextmanager
    def running(self) -> Iterator[None]:
        rights = self.folder / "s3.json"
        rights.write_text(json.dumps({"identities": [_identity(name) for name in KEYS]}))
        data = self.folder / "data"
        data.mkdir(exist_ok=True)
        command = [
            self.weed, "server", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
            f"-master.port={self.master}", f"-volume.port={self.volume}", "-filer",
            f"-filer.port={self.filer}", "-s3", f"-s3.port={self.port}", f"-s3.config={rights}",
            "-s3.port.iceberg=0", "-s3.port.lance=0",
            "-volume.max=8", f"-master.volumeSizeLimitMB={VOLUME_MB}",
            "-master.defaultReplication=000",
        ]  # fmt: skip
        with (self.folder / "log").open("wb") as log:
            server = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)
        try:
            until = time.monotonic() + 60
            while not self._takes_an_object():
                if time.monotonic() > until:
                    raise RuntimeError((self.folder / "log").read_text()[-2000:])
                time.sleep(0.2)
            yield
        finally:
            server.kill()
            server.wait()
            shutil.rmtree(data, ignore_errors=True)

    def _takes_an_object(self) -> bool:
        """An administrator's first object makes the bucket."""
        try:
            _in_a_thread(S3Blobs(self.bucket()).verify)
        except BlobStoreSetupError:
            return False
        return True


def _in_a_thread(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run where no event loop runs yet: tests that start a server may have one."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: asyncio.run(work())).result()


def _identity(name: str) -> dict[str, object]:
    key_id, secret = KEYS[name]
    credentials = [{"accessKey": key_id, "secretKey": secret}]
    return {"name": name, "credentials": credentials, "actions": ACTIONS[name]}
