"""Runs the model: prepared requests in, events and step statistics out. Knows no queue, no HTTP."""

import os

SPIN_COUNT = "20000"
"""Torch's OpenMP threads spin so often for each other before they sleep: tenths of a millisecond.

Never to spin costs every product a wake-up: on two idle cores a request took 1.05 s without, 0.73 s
so and 0.59 s with OpenMP's own three milliseconds. To spin for long holds up whoever shares the
cores, and so the thread that is waited for: with both cores busy otherwise, a request to a smaller
model took 0.19 s without, 0.40 s so and 2.3 s with OpenMP's own. Read when torch is first imported.
"""

os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
