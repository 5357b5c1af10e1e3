"""One step of one queue: ``python -m bench.queue_systems NAME send|work|read``.

``send`` writes the time it took and the names of the tasks to the file ``QUEUE_SENT``; ``read``
prints the answers to them as JSON. ``work`` is for Forebay alone: peers have commands of their own.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from importlib import import_module
from pathlib import Path


def main() -> None:
    """Do the step that the command line names."""
    name, step = sys.argv[1:]
    system = import_module(f"bench.queue_systems.on_{name}")
    sent = Path(os.environ["QUEUE_SENT"])
    if step == "send":
        found = dataclasses.asdict(system.send(int(os.environ["QUEUE_TASKS"])))
        sent.write_text(json.dumps(found), encoding="utf-8")
    elif step == "read":
        print(json.dumps(system.read(json.loads(sent.read_text(encoding="utf-8"))["names"])))
    else:
        system.work()


if __name__ == "__main__":
    main()
