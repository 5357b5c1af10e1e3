"""The server that answers: a process of its own, fast, and always right.

``GET /runs`` tells how often each question was run, also those that no client was told of.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
from collections import Counter
from typing import Any

import uvloop

from forebay.admission.header import read_header
from forebay.worker.leash import end_with_parent
from tests.chaos.answers import words
from tests.engine.fake_upstream import DONE, Exchange, FakeUpstream, delta, usage


class Oracle(FakeUpstream):
    """Streams the right answer, a few words at a time, ``pause_s`` apart.

    ``garble``: the n-th answer is wrong, for tests of those who check.
    """

    def __init__(self, port: int, pause_s: float, garble: int = 0) -> None:
        super().__init__(port=port, chat=self._say)
        self._pause_s = pause_s
        self._garble = garble
        self.runs: Counter[str] = Counter()

    async def _reply(self, exchange: Exchange) -> None:
        self.seen.clear()  # it keeps every body, and this one serves thousands
        if exchange.path.endswith("/runs"):
            await exchange.whole(200, dict(self.runs))
        else:
            await super()._reply(exchange)

    async def _say(self, exchange: Exchange) -> None:
        prompt, size = _asked(exchange.asked)
        self.runs[prompt] += 1
        said = words(prompt, size)
        if self.runs.total() == self._garble:
            said[2:4] = []
        await exchange.head(connection="close")
        for at in range(0, len(said), 3):
            await exchange.send(*(delta(word) for word in said[at : at + 3]))
            await asyncio.sleep(self._pause_s)
        await exchange.send(delta("", "stop"), usage(7, len(said)), DONE)
        await exchange.end()


def _asked(body: dict[str, Any]) -> tuple[str, tuple[int, int] | None]:
    content = body["messages"][-1]["content"]
    if isinstance(content, str):
        return content, None
    text = "".join(part["text"] for part in content if part["type"] == "text")
    urls = [part["image_url"]["url"] for part in content if part["type"] == "image_url"]
    if not urls:
        return text, None
    header = read_header(base64.b64decode(urls[0].partition(",")[2]))
    return text, (header.width, header.height)


async def _serve(port: int, pause_s: float, garble: int) -> None:
    async with Oracle(port, pause_s, garble).listening():
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--pause-s", type=float, default=0.02)
    parser.add_argument("--garble", type=int, default=0)
    options = parser.parse_args()
    end_with_parent(1.0)
    uvloop.run(_serve(options.port, options.pause_s, options.garble))


if __name__ == "__main__":
    main()
