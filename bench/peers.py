"""How each server is started for the comparison: Forebay itself, and what users would pick instead.

Each gets both cores, fp32 (faster than bf16 on the CPUs at hand) and its own best settings that
its documentation names.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from bench.servers import Recipe
from forebay.config import PEERS_VARIABLE, Settings
from scripts.running_stack import free_port

ROOT = Path(__file__).resolve().parent.parent
LITSERVE_BATCH = 8
CONTEXT = 4096


class PeerMissingError(Exception):
    """A peer is not installed; the message has the command that installs it."""


def peers_home() -> Path:
    """Return the folder of the peers' environments: ``$FOREBAY_PEERS``, or ``.peers`` here."""
    return Path(os.environ.get(PEERS_VARIABLE, ".peers")).expanduser().absolute()


def forebay(name: str, checkpoint: Path, data_dir: Path, quantization: str | None) -> Recipe:
    """Return Forebay's whole stack with its own data folder.

    ``quantization``: None leaves the choice to Forebay. Whether this version knows the setting at
    all says :func:`knows_quantization`.
    """
    port = free_port()
    command = (sys.executable, "-m", "forebay", "serve", "--port", str(port))
    environment = {"PYTHONUNBUFFERED": "1"}
    if quantization is not None and knows_quantization():
        environment["FOREBAY_QUANTIZATION"] = quantization
    return Recipe(
        name=name,
        command=(*command, "--model", str(checkpoint), "--data-dir", str(data_dir)),
        port=port,
        ready_path="/ready",
        model=checkpoint.name,
        environment=environment,
        run_dir=data_dir / "run",
    )


def knows_quantization() -> bool:
    """Whether this version of Forebay has the setting ``quantization``."""
    return "quantization" in Settings.model_fields


def _vllm(home: Path, checkpoint: Path) -> Recipe:
    """Return vLLM's CPU build; by default it would keep a core for itself and expect videos."""
    port, last_core = free_port(), (os.cpu_count() or 1) - 1
    command = (
        *(str(home / "vllm" / "bin" / "vllm"), "serve", str(checkpoint)),
        *("--served-model-name", "m", "--host", "127.0.0.1", "--port", str(port)),
        *("--max-model-len", str(CONTEXT), "--dtype", "float32", "--skip-mm-profiling"),
        *("--limit-mm-per-prompt", '{"image": 1, "video": 0}'),
    )
    environment = {
        "VLLM_CPU_KVCACHE_SPACE": "2",
        "VLLM_CPU_OMP_THREADS_BIND": f"0-{last_core}",
    }
    return Recipe("vllm", command, port, environment=environment)


def _litserve(home: Path, checkpoint: Path) -> Recipe:
    environment = {"BATCH": str(LITSERVE_BATCH)}
    return _hf_script("litserve", home, checkpoint, environment)


def _flask(home: Path, checkpoint: Path) -> Recipe:
    return _hf_script("flask", home, checkpoint, {})


def _hf_script(name: str, home: Path, checkpoint: Path, extra: Mapping[str, str]) -> Recipe:
    port = free_port()
    return Recipe(
        name=name,
        command=(str(home / "hf" / "bin" / "python"), "-m", f"bench.peer_servers.{name}_server"),
        port=port,
        streams=False,
        environment={
            "PYTHONPATH": str(ROOT),
            "CHECKPOINT": str(checkpoint),
            "PORT": str(port),
            "THREADS": str(os.cpu_count() or 1),
            **extra,
        },
    )


def _transformers(home: Path, checkpoint: Path) -> Recipe:
    """Transformers' own server; it knows a model by its path."""
    port = free_port()
    command = (
        *(str(home / "hf" / "bin" / "transformers"), "serve", str(checkpoint)),
        *("--device", "cpu", "--dtype", "float32", "--host", "127.0.0.1", "--port", str(port)),
    )
    return Recipe("transformers", command, port, model=str(checkpoint))


PEERS: Mapping[str, Callable[[Path, Path], Recipe]] = MappingProxyType(
    {"vllm": _vllm, "litserve": _litserve, "flask": _flask, "transformers": _transformers}
)
_ENVIRONMENT_OF = {"vllm": "vllm", "litserve": "hf", "flask": "hf", "transformers": "hf"}


def peer(name: str, home: Path, checkpoint: Path) -> Recipe:
    """Return how the peer ``name`` is started for a checkpoint."""
    return PEERS[name](home, checkpoint)


def require_peers(names: Sequence[str], home: Path) -> None:
    """Check that every peer is known and installed.

    Raises:
        PeerMissingError: one is not.
    """
    for name in names:
        if name not in PEERS:
            raise PeerMissingError(f"no such peer: {name!r}; known: {', '.join(PEERS)}")
    lacking = {
        _ENVIRONMENT_OF[name]
        for name in names
        if not (home / _ENVIRONMENT_OF[name] / "bin" / "python").is_file()
    }
    if lacking:
        wanted = " ".join(sorted(lacking))
        raise PeerMissingError(
            f"not installed under {home}: {wanted}. Install with: make peers ARGS='{wanted}', "
            f"or name another folder in {PEERS_VARIABLE}."
        )
