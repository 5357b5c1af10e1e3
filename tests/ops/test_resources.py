"""Readings of a machine, and what becomes of them in the metrics."""

from __future__ import annotations

import math
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from forebay.ops.metrics import Metrics
from forebay.ops.nvml import GpuReading, Nvml
from forebay.ops.resources import Machine, MachineReading
from forebay.ops.worker_status import Phase, WorkerStatus, write_status
from forebay.ops.worker_watch import RestartCounter


def certificate(file: Path, *days: float) -> None:
    """Write certificates that expire in so many days."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now, made = datetime.now(UTC), b""
    for each in days:
        made += (
            x509.CertificateBuilder()
            .subject_name(name).issuer_name(name).public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=9)).not_valid_after(now + timedelta(days=each))
            .sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        )  # fmt: skip
    file.write_bytes(made)


def test_a_machine_is_read(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    sum(i * i for i in range(200_000))
    reading = machine.read()
    usage = os.statvfs(tmp_path)
    taken = 1 - usage.f_bavail / (usage.f_blocks - usage.f_bfree + usage.f_bavail)
    assert 0 <= reading.cpu_use <= 1
    assert 0 < reading.memory_use < 1
    assert reading.disk_use == pytest.approx(taken, abs=0.01)


def test_of_a_folder_that_is_not_there_yet_its_disk_is_read(tmp_path: Path) -> None:
    there = Machine(tmp_path).read().disk_use
    assert Machine(tmp_path / "not" / "yet").read().disk_use == pytest.approx(there, abs=0.01)


def test_the_first_certificate_of_a_file_to_expire_counts(tmp_path: Path) -> None:
    chain, broken = tmp_path / "chain.pem", tmp_path / "broken.pem"
    certificate(chain, 90, 5, 30)
    broken.write_text("none", encoding="ascii")
    reading = Machine(tmp_path, [chain, broken, tmp_path / "gone.pem"]).read()
    soon = (datetime.now(UTC) + timedelta(days=5)).timestamp()
    assert reading.certificates == {str(chain): pytest.approx(soon, abs=120)}


def test_what_a_machine_does_not_tell_any_more_is_withdrawn() -> None:
    metrics = Metrics()
    gpu = GpuReading(0, 0.5, 8 * 2**30, 16 * 2**30, 60, 120.0)
    metrics.see_machine(MachineReading("h", 0.1, 0.2, 0.3, (gpu,), {"f": 5.0}))
    labels = {"host": "h", "gpu": "0"}
    value = metrics.registry.get_sample_value
    assert value("forebay_gpu_memory_use_ratio", labels) == 0.5
    assert value("forebay_gpu_power_watts", labels) == 120.0
    assert value("forebay_certificate_expiry_timestamp_seconds", {"file": "f"}) == 5.0
    metrics.see_machine(MachineReading("h", 0.1, 0.2, None))
    assert value("forebay_gpu_memory_use_ratio", labels) is None
    assert value("forebay_disk_use_ratio", {"host": "h"}) is None
    assert value("forebay_cpu_use_ratio", {"host": "h"}) == 0.1


def test_an_unknown_queue_has_no_workers_to_be_missed() -> None:
    metrics = Metrics()
    metrics.miss_queue()
    assert metrics.registry.get_sample_value("forebay_queue_up") == 0
    workers = metrics.registry.get_sample_value("forebay_workers")
    assert workers is not None
    assert math.isnan(workers)


def test_a_worker_that_begins_anew_is_counted(tmp_path: Path) -> None:
    def is_there(name: str, pid: int) -> None:
        write_status(tmp_path, WorkerStatus(name, pid, Phase.READY, "m"))

    counter = RestartCounter(tmp_path)
    is_there("w-1", 10)
    is_there("w-2", 20)
    assert counter.look() == {"w-1": 0, "w-2": 0}
    is_there("w-1", 11)
    (tmp_path / "w-2.status.json").write_text("{", encoding="ascii")
    assert counter.look() == {"w-1": 1}
    is_there("w-2", 20)
    assert counter.look() == {"w-1": 0, "w-2": 0}


@pytest.mark.gpu
@pytest.mark.skipif(Nvml.open() is None, reason="no NVIDIA driver")
def test_a_gpu_is_read_through_its_driver() -> None:
    nvml = Nvml.open()
    assert nvml is not None
    gpu = nvml.read()[0]
    assert 0 < gpu.memory_used < gpu.memory_total
    assert gpu.use is not None
    assert 0 <= gpu.use <= 1
    assert gpu.temperature_c is not None
    assert 10 < gpu.temperature_c < 110
    assert gpu.power_w is not None
    assert 5 < gpu.power_w < 2000
