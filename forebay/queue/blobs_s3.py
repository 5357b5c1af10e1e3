"""Pictures in a bucket of any server that speaks S3; see docs/adr/0031."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, cast

from forebay.core.errors import QueueUnavailableError, StorageFullError
from forebay.core.request import DEFAULT_TENANT, Tenant
from forebay.queue.blobs import ASIDE_NAME, SHA256_HEX
from forebay.queue.errors import BlobStoreSetupError
from forebay.queue.ports import AsideName

if TYPE_CHECKING:
    from obstore.store import S3Config, S3Store

ASIDE: Final = "aside"
ENDPOINT: Final = re.compile(r"https?://([A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\])(:[0-9]{1,5})?/?")
BATCH: Final = 200
RETRY_AFTER_S: Final = 60.0
FULL_CODES: Final = ("QuotaExceeded", "StorageFull", "InsufficientStorage", "507 ")
"""What servers that bound a bucket answer when it is full (Ceph, MinIO, and others by status)."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """Where a bucket is and who may use it.

    ``endpoint``: of a server other than Amazon's; http or https. Without ``key_id`` and ``secret``
    the credentials are those of the process: environment, web identity, container or instance.
    ``timeout_s``: longest that one request may take, its body included.
    """

    name: str
    prefix: str = ""
    endpoint: str | None = None
    region: str | None = None
    key_id: str | None = None
    secret: str | None = field(default=None, repr=False)
    timeout_s: float = 5.0

    def __post_init__(self) -> None:
        """Refuse what is no address. Raises ValueError."""
        if self.endpoint is not None and not ENDPOINT.fullmatch(self.endpoint):
            raise ValueError(
                "the endpoint must be of the form http(s)://HOST or http(s)://HOST:PORT"
            )


class S3Blobs:
    """BlobStore and SweptBlobs in a bucket, shared by all machines.

    An object is whole or not there: that is S3's own promise. One that is there already is not sent
    again while its time is younger than ``renew_s``. Safe for many tasks of one event loop.
    """

    def __init__(self, bucket: Bucket, renew_s: float = 3600.0) -> None:
        try:
            import obstore  # noqa: PLC0415 - an optional extra
        except ImportError as error:
            raise BlobStoreSetupError(
                "Pictures in S3 need the package obstore.", mend="Run: pip install 'forebay[s3]'"
            ) from error
        self._s3 = obstore
        self._bucket = bucket
        self._renew = timedelta(seconds=renew_s)
        self._store = _store(bucket)

    async def verify(self) -> None:
        """Write, read and remove one small object.

        Raises BlobStoreSetupError with the server's own words when one of them is refused.
        """
        name = f"verify/{secrets.token_hex(8)}"
        try:
            await self._s3.put_async(self._store, name, b"forebay", use_multipart=False)
            await (await self._s3.get_async(self._store, name)).bytes_async()
            await self._s3.delete_async(self._store, name)
        except (self._s3.exceptions.BaseError, OSError) as error:
            raise BlobStoreSetupError(
                f"The bucket {self._bucket.name!r} cannot be used: {_why(error)}",
                mend="Check that it exists, and blob_store, s3_endpoint, s3_region and the keys.",
            ) from error

    async def put(self, content: bytes, tenant: Tenant = DEFAULT_TENANT) -> str:
        """Store ``content``; return its SHA-256.

        Raises:
            StorageFullError: the server says that the bucket is full.
            QueueUnavailableError: it refuses, or does not answer in time.
        """
        del tenant  # all share the bucket
        sha256 = hashlib.sha256(content).hexdigest()
        path = _path(sha256)
        with self._refusals("storing a picture"):
            if not await self._is_recent(path, len(content)):
                await self._s3.put_async(self._store, path, content, use_multipart=False)
        return sha256

    async def settle(self, sha256s: Sequence[str]) -> None:
        """Return at once: a bucket says yes to what is safe."""

    async def get(self, sha256: str, tenant: Tenant = DEFAULT_TENANT) -> bytes:
        """Return the bytes, verified.

        Raises KeyError when they are not there or are damaged, QueueUnavailableError.
        """
        del tenant
        if not SHA256_HEX.fullmatch(sha256):
            raise KeyError(sha256)
        with self._refusals("reading a picture"):
            content = await self._read(_path(sha256))
            if content is None:
                async for names in self._aside(f"{ASIDE}/{sha256[:2]}"):
                    for name in names:
                        if name.startswith(sha256):
                            content = content or await self._read(_aside_path(name))
        if content is None or hashlib.sha256(content).hexdigest() != sha256:
            raise KeyError(sha256)
        return content

    async def old(self, older_than_s: float) -> AsyncGenerator[list[str]]:
        """Yield what was not stored for so long, by the server's clock."""
        before = datetime.now(UTC) - timedelta(seconds=older_than_s)
        with self._refusals("listing pictures"):
            async for page in self._s3.list(self._store, chunk_size=BATCH):
                names = [(one["path"].rpartition("/"), one["last_modified"]) for one in page]
                yield [
                    name
                    for (folder, _, name), modified in names
                    if folder == name[:2] and SHA256_HEX.fullmatch(name) and modified < before
                ]

    def aside(self) -> AsyncGenerator[list[AsideName]]:
        """Yield what is set aside."""
        return self._aside(ASIDE)

    async def set_aside(self, sha256: str) -> AsideName | None:
        """Copy a blob to another name, then remove it; None when it is not there."""
        name = AsideName(f"{sha256}.{secrets.token_hex(8)}")
        with self._refusals("setting a picture aside"):
            return name if await self._moved(_path(sha256), _aside_path(name)) else None

    async def restore(self, name: AsideName) -> None:
        """Copy it back, then remove the copy."""
        with self._refusals("restoring a picture"):
            await self._moved(_aside_path(name), _path(name[:64]))

    async def discard(self, name: AsideName) -> None:
        """Remove what was set aside."""
        with self._refusals("removing a picture"):
            await self._s3.delete_async(self._store, _aside_path(name))

    async def _aside(self, prefix: str) -> AsyncGenerator[list[AsideName]]:
        with self._refusals("listing pictures"):
            async for page in self._s3.list(self._store, prefix, chunk_size=BATCH):
                names = [one["path"].rpartition("/")[2] for one in page]
                yield [AsideName(name) for name in names if ASIDE_NAME.fullmatch(name)]

    async def _is_recent(self, path: str, size: int) -> bool:
        try:
            there = await self._s3.head_async(self._store, path)
        except FileNotFoundError:
            return False
        age = datetime.now(UTC) - there["last_modified"]
        return there["size"] == size and age < self._renew

    async def _read(self, path: str) -> bytes | None:
        try:
            found = await self._s3.get_async(self._store, path)
            return bytes(await found.bytes_async())
        except FileNotFoundError:
            return None

    async def _moved(self, path: str, to: str) -> bool:
        try:
            await self._s3.rename_async(self._store, path, to)
        except FileNotFoundError:
            return False
        return True

    @contextmanager
    def _refusals(self, doing: str) -> Iterator[None]:
        try:
            yield
        except (self._s3.exceptions.BaseError, OSError) as error:
            message = f"The store for pictures failed while {doing}: {_why(error)}"
            if any(code in str(error) for code in FULL_CODES):
                raise StorageFullError(message, retry_after=RETRY_AFTER_S) from error
            raise QueueUnavailableError(message, retry_after=RETRY_AFTER_S) from error


def _store(bucket: Bucket) -> S3Store:
    from obstore.store import S3Store  # noqa: PLC0415 - an optional extra

    given: dict[str, str | None] = {
        "endpoint": bucket.endpoint,
        "region": bucket.region,
        "access_key_id": bucket.key_id,
        "secret_access_key": bucket.secret,
    }
    try:
        return S3Store(
            bucket.name,
            prefix=bucket.prefix or None,
            virtual_hosted_style_request=False,
            client_options={
                "allow_http": True,
                "timeout": timedelta(seconds=bucket.timeout_s),
                "connect_timeout": timedelta(seconds=min(2.0, bucket.timeout_s)),
            },
            retry_config={
                "max_retries": 2,
                "retry_timeout": timedelta(seconds=bucket.timeout_s),
                "backoff": {
                    "init_backoff": timedelta(milliseconds=100),
                    "max_backoff": timedelta(seconds=1),
                    "base": 2,
                },
            },
            config=cast(
                "S3Config", {name: value for name, value in given.items() if value is not None}
            ),
        )
    except ValueError as error:
        raise BlobStoreSetupError(
            f"The bucket {bucket.name!r} cannot be used: {_why(error)}", mend="Check blob_store."
        ) from error


def _path(sha256: str) -> str:
    return f"{sha256[:2]}/{sha256}"


def _aside_path(name: AsideName) -> str:
    return f"{ASIDE}/{name[:2]}/{name}"


def _why(error: Exception) -> str:
    """Return what went wrong in one line: the rest of the library's text is for its developers."""
    return str(error).partition("\n\n")[0].replace("\n", " ")[:500]
