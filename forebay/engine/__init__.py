"""Runs the model: prepared requests in, events and step statistics out. Knows no queue, no HTTP."""

import os

# Torch's OpenMP threads spin while they wait for each other. On cores that the API, the queue or
# anything else shares, a spinning thread holds up the one it waits for: a burst of 50 pictures took
# 50.7 s with spinning and 9.9 s without, on two busy cores. Read when torch is first imported.
os.environ.setdefault("GOMP_SPINCOUNT", "0")
