"""Encodes pictures: in the step, or beside the steps on a thread of its own.

A vision tower's products are too small for all of a CPU's threads to share well, and a decode
step's far smaller still. So while there is both to do, each runs with half of the threads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from forebay.engine.prepared import PreparedImage

Encode = Callable[[Mapping[str, PreparedImage]], Mapping[str, Tensor]]
"""From pictures by their SHA-256 to their visual tokens."""

LIGHT_WORK = 100_000_000
"""Multiply-adds of a step up to which one thread does them about as fast as two, and in peace."""

LONGEST_WAIT_S = 1.0
"""How long a step without other work waits for a picture; then another step does."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """Pictures that are no longer being encoded.

    ``tokens``: None where nobody wanted the picture any more. ``seconds``: spent beside the steps.
    """

    tokens: Mapping[str, Tensor | None]
    seconds: float = 0.0


class Pictures(Protocol):
    """Where an engine has its pictures encoded. Called by the thread that steps the engine."""

    def start(self, images: Mapping[str, PreparedImage], *, work: int, lends: bool) -> None:
        """Begin to encode pictures.

        Args:
            images: by their SHA-256.
            work: multiply-adds that the step has to do otherwise.
            lends: the step has time for a picture that would otherwise wait.
        """
        ...

    def collect(self, wanted: Callable[[str], bool]) -> Encoded:
        """Return what has come to its end since the last call.

        Raises:
            Exception: whatever the vision tower raised.
        """
        ...

    def close(self) -> None:
        """Give up the pictures that are not begun; none may be started any more. Thread-safe."""
        ...


class PicturesInStep:
    """Encodes a step's pictures together and at once. For a GPU, which is filled by many."""

    def __init__(self, encode: Encode) -> None:
        self._encode = encode
        self._done: dict[str, Tensor | None] = {}

    def start(self, images: Mapping[str, PreparedImage], *, work: int, lends: bool) -> None:
        """See :class:`Pictures`."""
        del work, lends
        if images:
            self._done.update(self._encode(images))

    def collect(self, wanted: Callable[[str], bool]) -> Encoded:
        """See :class:`Pictures`."""
        del wanted
        done, self._done = self._done, {}
        return Encoded(done)

    def close(self) -> None:
        """See :class:`Pictures`; none ever waits here."""


class PicturesBeside:
    """Encodes beside the steps, one picture after the other.

    A step with time to spare encodes a picture itself: the last that the thread has not begun.
    Alone at work, it has all of the process's threads.
    """

    def __init__(self, encode: Encode, threads: int) -> None:
        self._encode = encode
        self._threads = threads
        self._beside = max(1, threads // 2)
        self._lane = _Lane(encode, self._beside)
        self._done: dict[str, Tensor | None] = {}

    def start(self, images: Mapping[str, PreparedImage], *, work: int, lends: bool) -> None:
        """See :class:`Pictures`."""
        mine, idle = dict(images), work == 0
        own = dict([mine.popitem()]) if idle and mine else {}
        self._lane.put(mine)
        if not own and (idle or lends):
            own = self._lane.withdraw_last()
        if idle and not own:
            self._lane.wait()
        if own:
            self._use(self._share)
            self._done.update(self._encode(own))
        self._use(self._share if work > LIGHT_WORK else 1)

    def collect(self, wanted: Callable[[str], bool]) -> Encoded:
        """See :class:`Pictures`."""
        done, self._done = self._done, {}
        dropped = self._lane.withdraw(lambda key: not wanted(key))
        beside, seconds = self._lane.collect()
        return Encoded({**done, **dict.fromkeys(dropped), **beside}, seconds)

    def close(self) -> None:
        """See :class:`Pictures`."""
        self._lane.close()

    @property
    def _share(self) -> int:
        """This thread's share of the threads, by whether the other one has work."""
        return max(1, self._threads - self._beside) if self._lane.busy else self._threads

    def _use(self, threads: int) -> None:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)


class _Lane:
    """A thread that encodes what is put before it, picture by picture."""

    def __init__(self, encode: Encode, threads: int) -> None:
        self._encode = encode
        # the setting is of that thread's products alone
        self._thread = ThreadPoolExecutor(1, "pictures", torch.set_num_threads, (threads,))
        self._jobs: dict[str, _Job] = {}

    @property
    def busy(self) -> bool:
        """Whether it has anything to do."""
        return any(not job.future.done() for job in self._jobs.values())

    def put(self, images: Mapping[str, PreparedImage]) -> None:
        """Have pictures encoded."""
        for key, image in images.items():
            self._jobs[key] = _Job(image, self._thread.submit(self._run, key, image))

    def withdraw(self, which: Callable[[str], bool]) -> dict[str, PreparedImage]:
        """Take back pictures that it has not begun."""
        keys = [key for key, job in self._jobs.items() if which(key) and job.future.cancel()]
        return {key: self._jobs.pop(key).image for key in keys}

    def withdraw_last(self) -> dict[str, PreparedImage]:
        """Take back the picture that it would begin last, unless it is its only one."""
        waiting = [key for key, job in self._jobs.items() if not job.future.done()]
        return self.withdraw(lambda key: key == waiting[-1]) if len(waiting) > 1 else {}

    def wait(self) -> None:
        """Return when it has encoded a picture or has nothing to do; or after a while."""
        futures = [job.future for job in self._jobs.values()]
        wait(futures, LONGEST_WAIT_S, FIRST_COMPLETED)

    def collect(self) -> tuple[dict[str, Tensor], float]:
        """Return what it has encoded since the last call, and the seconds it took."""
        done = [key for key, job in self._jobs.items() if job.future.done()]
        results = {key: self._jobs.pop(key).future.result() for key in done}
        seconds = sum(spent for _, spent in results.values())
        return {key: tokens for key, (tokens, _) in results.items()}, seconds

    def close(self) -> None:
        """End the thread after the picture under way, which the process's end waits for."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _run(self, key: str, image: PreparedImage) -> tuple[Tensor, float]:
        began = time.perf_counter()
        with torch.inference_mode():
            tokens = self._encode({key: image})[key]
        return tokens, time.perf_counter() - began


@dataclass(frozen=True, slots=True)
class _Job:
    """A picture with the promise of its tokens, and of the seconds that they took."""

    image: PreparedImage
    future: Future[tuple[Tensor, float]]
