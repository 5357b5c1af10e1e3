"""A disk that is slow, broken or full, as the queue's server and our own syncs meet it."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

SLOW_S = 1.5

LIBRARY = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int is(const char *what) {
  char path[4096];
  snprintf(path, sizeof path, "%s/%s", getenv("FAKE_DISK"), what);
  return access(path, F_OK) == 0;
}

static int is_appended_to(int fd) {
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = 0;
  return strstr(path, ".incr.") != NULL;
}

int fdatasync(int fd) {
  int (*real)(int) = dlsym(RTLD_NEXT, "fdatasync");
  if (is("slow")) usleep(1500000);
  if (is("broken") || (is("broken_at_close") && is_appended_to(fd))) {
    errno = EIO;
    return -1;
  }
  return real(fd);
}

ssize_t write(int fd, const void *bytes, size_t count) {
  ssize_t (*real)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
  struct stat about;
  if (is("full") && fstat(fd, &about) == 0 && S_ISREG(about.st_mode)) {
    errno = ENOSPC;
    return -1;
  }
  return real(fd, bytes, count);
}
"""


class Disk:
    """What is wrong with the disk: ``slow``, ``broken``, ``broken_at_close`` or ``full``.

    ``broken_at_close`` is met by the server alone, as it syncs a file that it has done with.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self.library = folder / "disk.so"

    @staticmethod
    def can_be_faked() -> bool:
        """Return whether this machine can do it: it needs a C compiler, and Linux."""
        return shutil.which("cc") is not None and os.uname().sysname == "Linux"

    def environment(self) -> dict[str, str]:
        """Build the library; return the variables with which a process has this disk."""
        source = self._folder / "disk.c"
        source.write_text(LIBRARY)
        command = ["cc", "-shared", "-fPIC", "-o", str(self.library), str(source), "-ldl"]
        subprocess.run(command, check=True)
        return {"LD_PRELOAD": str(self.library), "FAKE_DISK": str(self._folder)}

    def becomes(self, *wrongs: str) -> None:
        """Have just these things wrong from now on."""
        for wrong in ("slow", "broken", "broken_at_close", "full"):
            flag = self._folder / wrong
            if wrong in wrongs:
                flag.touch()
            else:
                flag.unlink(missing_ok=True)

    def met_by(self, really: Callable[[int], None]) -> Callable[[int], None]:
        """Return a sync of this process's own that meets this disk."""

        def sync(descriptor: int) -> None:
            if (self._folder / "slow").exists():
                time.sleep(SLOW_S)
            if (self._folder / "broken").exists():
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            really(descriptor)

        return sync
