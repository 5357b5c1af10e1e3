"""What stores of pictures call of the library: each function with its types."""

from __future__ import annotations

from collections.abc import Sequence

from forebay.queue.functions import Functions


class BlobLibrary(Functions):
    """The functions about pictures."""

    async def hold(self, sha256s: Sequence[str], for_s: float) -> int:
        """Claim pictures; return how many of them are kept in this server."""
        return int(await self._call("hold", round(for_s * 1000), *sha256s))

    async def unneeded(self, sha256s: Sequence[str]) -> list[str]:
        """Return those that no task needs and no request on its way in has claimed."""
        return list(await self._call("unneeded", *sha256s))

    async def put_blob(self, sha256: str, content: bytes) -> None:
        """Keep a picture in this server."""
        await self._call("put_blob", sha256, content)
