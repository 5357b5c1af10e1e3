"""How long the door's event loop stands still, as a client sees it: a process of its own.

    python -m bench.door_probe URL

Asks ``/healthz``, which needs nothing but the loop, every ten milliseconds on one connection, until
standard input ends; then prints the times of all answers, in seconds, as JSON. A time is that of
the stall it met, of the way there and back, and of whatever else the machine did meanwhile.
"""

from __future__ import annotations

import http.client
import json
import select
import sys
import time
from urllib.parse import urlsplit

EVERY_S = 0.01


def main() -> None:
    """Probe until standard input ends."""
    address = urlsplit(sys.argv[1])
    door = http.client.HTTPConnection(address.netloc, timeout=60)
    times: list[float] = []
    while not select.select([sys.stdin], [], [], EVERY_S)[0]:
        began = time.perf_counter()
        door.request("GET", "/healthz")
        door.getresponse().read()
        times.append(time.perf_counter() - began)
    print(json.dumps(times))


if __name__ == "__main__":
    main()
