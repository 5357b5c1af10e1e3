"""``python -m tests.hostile``: hostile requests by the thousand, and what came of them."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from tests.checkpoints import TINY, write_checkpoint
from tests.hostile.assault import assault


def main() -> int:
    """Return 0 when every attack was refused cleanly and nothing was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    parser.add_argument("--count", type=int, default=2000, help="attacks")
    parser.add_argument("--seed", type=int, default=1, help="of the attacks")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="forebay-hostile-") as scratch:
        folder = Path(scratch)
        model = write_checkpoint(folder / "model", TINY)
        figures = assault(folder / "data", model, options.count, options.seed, print)
    figures = {"count": options.count, "seed": options.seed, **figures}
    text = json.dumps(figures, indent=2, ensure_ascii=False)
    print(text)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")
    return 1 if figures["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
