"""What the figures were taken on."""

import os
import platform
import statistics
import subprocess
import tempfile
import time
from importlib import metadata
from pathlib import Path

import psutil

_CLIENTS = ("postroom", "kafka-python", "crc32c", "confluent-kafka", "psycopg", "sqlalchemy")
_SYNCS = 200


def facts() -> dict[str, str]:
    """The machine, and what is installed beside us."""
    versions = {name: _version(name) for name in _CLIENTS}
    return {
        "CPU": f"{psutil.cpu_count()} cores, {_cpu_model()}",
        "Memory": f"{psutil.virtual_memory().total / 1024**3:.0f} GB",
        "System": platform.platform(),
        "fdatasync of 8 kB": f"median {1000 * sync_seconds():.2f} ms in {tempfile.gettempdir()}",
        "Load before": f"{os.getloadavg()[0]:.2f}",
        "Code": _commit(),
        "Installed": ", ".join(f"{name} {version}" for name, version in versions.items() if version),
        "Settings by environment": ", ".join(
            f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith("POSTROOM_RELAY__")
        )
        or "none",
    }


def sync_seconds() -> float:
    """How long the disk takes to make a small write durable; each commit waits for it."""
    taken = []
    with tempfile.TemporaryFile(buffering=0) as file:
        for _ in range(_SYNCS):
            file.write(b"x" * 8192)
            began = time.perf_counter()
            getattr(os, "fdatasync", os.fsync)(file.fileno())
            taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def _commit() -> str:
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parent,
        )
    except (OSError, subprocess.CalledProcessError):
        return "not a git checkout"
    return described.stdout.strip()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()
