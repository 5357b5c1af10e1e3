"""A tool that believes every word of a server's description, and asks it by that."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
EXAMPLES: Final = 4
"""Requests for each route, beside those of the coverage phase; the tool's own default is 100."""


async def finds_nothing(url: str, cwd: Path, *options: str, examples: int = EXAMPLES) -> None:
    """Run it against a server; fail with what it says unless all is as described."""
    run = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli"),
        *("--config-file", str(ROOT / "schemathesis.toml"), "run", f"{url}/openapi.json"),
        *("--max-examples", str(examples), "--generation-deterministic", "--no-shrink"),
        *("--no-color", "--request-timeout", "20", *options),
        cwd=cwd,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    told = (await run.communicate())[0].decode()
    assert run.returncode == 0, told
    assert "No issues found" in told or "passed" in told, told
