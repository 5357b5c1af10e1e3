"""A store of pictures that fails once."""

from __future__ import annotations

import errno

from forebay.queue.blobs import FolderBlobs


class StumblingBlobs(FolderBlobs):
    """Its first read fails, as when a process is out of files; there is another delivery."""

    reads = 0

    async def get(self, sha256: str) -> bytes:
        self.reads += 1
        if self.reads == 1:
            raise OSError(errno.EMFILE, "Too many open files")
        return await super().get(sha256)
