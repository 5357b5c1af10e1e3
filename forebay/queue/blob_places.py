"""Pictures and claims of a queue of several partitions: each with the tenant's tasks."""

from __future__ import annotations

from collections.abc import Sequence

from forebay.core.request import DEFAULT_TENANT, Tenant
from forebay.queue.blob_store import BlobAddress
from forebay.queue.blobs import FolderBlobs
from forebay.queue.blobs_redis import RedisBlobs, RedisClaims
from forebay.queue.blobs_s3 import S3Blobs
from forebay.queue.opening import Place
from forebay.queue.partitions import partition_of


class PlacedBlobs:
    """BlobStore in the queue's servers: a picture lies beside its tenant's tasks."""

    def __init__(self, places: Sequence[Place]) -> None:
        self._stores = [RedisBlobs(one.redis, one.name, one.limits) for one in places]

    async def put(self, content: bytes, tenant: Tenant = DEFAULT_TENANT) -> str:
        """Store ``content`` in the tenant's partition. Raises as ``RedisBlobs.put``."""
        return await self._stores[partition_of(tenant, len(self._stores))].put(content, tenant)

    async def settle(self, sha256s: Sequence[str]) -> None:
        """Return at once, as ``RedisBlobs.settle``."""

    async def get(self, sha256: str, tenant: Tenant = DEFAULT_TENANT) -> bytes:
        """Return the bytes, from whichever partition has them, the tenant's first."""
        first = partition_of(tenant, len(self._stores))
        for store in self._stores[first:] + self._stores[:first]:
            try:
                return await store.get(sha256, tenant)
            except KeyError:
                continue
        raise KeyError(sha256)


class PlacedClaims:
    """BlobClaims over all partitions. What any of them needs is needed."""

    def __init__(self, places: Sequence[Place]) -> None:
        self._claims = [RedisClaims(one.redis, one.name, one.limits) for one in places]

    async def hold(self, sha256s: Sequence[str], tenant: Tenant = DEFAULT_TENANT) -> None:
        """Claim in the tenant's partition. Raises as ``RedisClaims.hold``."""
        await self._claims[partition_of(tenant, len(self._claims))].hold(sha256s, tenant)

    async def unneeded(self, sha256s: Sequence[str]) -> set[str]:
        """Return those that no partition needs. Raises QueueUnavailableError."""
        left = set(sha256s)
        for claims in self._claims:
            left = await claims.unneeded(sorted(left))
        return left


def open_blobs(
    address: BlobAddress, places: Sequence[Place]
) -> FolderBlobs | PlacedBlobs | S3Blobs:
    """Return the store; the caller verifies a bucket. Raises BlobStoreSetupError."""
    if address.folder is not None:
        return FolderBlobs(address.folder, address.max_bytes)
    if address.bucket is not None:
        return S3Blobs(address.bucket)
    return PlacedBlobs(places)
