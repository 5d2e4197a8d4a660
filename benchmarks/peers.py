"""The other systems: what of them can be measured here, and how to get it.

    python -m benchmarks.peers          # or: make bench-peers

makes a virtual environment with the Python ones, and fetches Kafka Connect and Debezium by Maven.
"""

import argparse
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rich.console import Console

from .systems import driver, family

ROOT = Path(__file__).parents[1]
DEFAULT_PEERS = ROOT / ".." / "shared" / "peers"
DEFAULT_CACHE = ROOT / ".cache" / "peers"

_PACKAGES = (
    "psycopg[binary]",
    "asyncpg",
    "sqlalchemy",
    "psutil",
    "confluent-kafka",
    "aiokafka",
    "kafka-python[crc32c]==3.0.12",
    "lz4",
    "cramjam",
    "txoutbox",
    "faststream-outbox",
    "faststream[kafka]",
)
_MODULES = {"naive": "kafka", "txoutbox": "txoutbox", "faststream": "faststream_outbox"}
_INSTALL_SECONDS = 900
_LOOK_SECONDS = 60


@dataclass(frozen=True)
class Peers:
    """``drivers``: the folder with ``sys_*.py``. ``cache``: where they are installed."""

    drivers: Path
    cache: Path

    @property
    def python(self) -> Path:
        """The interpreter of their environment."""
        return self.cache / "venv" / "bin" / "python"

    @property
    def connect(self) -> Path:
        """The jars: ``lib`` of Kafka Connect, ``plugins`` of Debezium."""
        return self.cache / "connect"

    def environment(self) -> dict[str, str]:
        """What their drivers read."""
        return {
            "PEERS": str(self.drivers),
            "CONNECT_LIB": str(self.connect / "lib"),
            "CONNECT_PLUGINS": str(self.connect / "plugins"),
            "NORECORD": "1",
            "PYTHONDONTWRITEBYTECODE": "1",  # their folder is not ours to write to
        }

    def missing(self, name: str) -> str | None:
        """Why ``name`` cannot be measured here; None when it can."""
        if not driver(self.drivers, name).exists():
            return f"there is no {driver(self.drivers, name)}"
        if not self.python.exists():
            return f"{self.python} is not there; `make bench-peers` makes it"
        if family(name) == "debezium":
            if shutil.which("java") is None:
                return "there is no java on PATH"
            return None if any(self.connect.glob("plugins/*/*.jar")) else f"no jars in {self.connect}"
        module = _MODULES.get(family(name), family(name))
        return None if self.versions.get(module) else f"{module} is not installed in {self.cache / 'venv'}"

    @cached_property
    def versions(self) -> dict[str, str]:
        """The versions of what is installed, by module or package; empty where nothing is."""
        if not self.python.exists():
            return {}
        look = (
            "from importlib import metadata as m\n"
            "for d in m.distributions():\n"
            " for n in {d.name, d.name.replace('-', '_')}: print(n, d.version)\n"
            "try: import kafka; print('kafka', kafka.__version__)\n"
            "except ImportError: pass"
        )
        done = subprocess.run(
            [self.python, "-c", look], capture_output=True, text=True, timeout=_LOOK_SECONDS, check=False
        )
        return dict(line.split() for line in done.stdout.splitlines() if len(line.split()) == 2)

    def summary(self) -> str:
        """The versions, for the results."""
        shown = ("confluent-kafka", "kafka", "aiokafka", "txoutbox", "faststream-outbox", "faststream")
        found = [f"{name} {self.versions[name]}" for name in shown if name in self.versions]
        jars = self.connect.glob("plugins/*/debezium-connector-postgres-*.jar")
        return ", ".join([*found, *(jar.stem.removeprefix("debezium-connector-") for jar in jars)]) or "none installed"

    def install(self, console: Console) -> list[str]:
        """Everything that can be had; what could not, and why."""
        failed = []
        self.cache.mkdir(parents=True, exist_ok=True)
        console.print(f"the Python ones, into {self.cache / 'venv'}")
        venv.create(self.cache / "venv", with_pip=True)
        pip = [str(self.python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        if error := _run([*pip, *_PACKAGES]):
            # One that cannot be had must not keep the others away.
            failed = [f"{package}: {why}" for package in _PACKAGES if (why := _run([*pip, package]))] or [error]
        console.print(f"Kafka Connect and Debezium, into {self.connect}")
        for pom, options in (
            ("pom-connect.xml", [f"-DoutputDirectory={self.connect / 'lib'}"]),
            (
                "pom-plugin.xml",
                ["-DincludeScope=runtime", f"-DoutputDirectory={self.connect / 'plugins' / 'debezium-postgres'}"],
            ),
        ):
            source = self.drivers / "debezium" / pom
            if not source.exists():
                failed.append(f"there is no {source}")
            elif error := _run(["mvn", "-q", "-B", "-f", str(source), "dependency:copy-dependencies", *options]):
                failed.append(f"{pom}: {error}")
        return failed


def _run(command: list[str]) -> str | None:
    """Why it failed; None when it did not."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return None if done.returncode == 0 else (done.stderr or done.stdout).strip()[-500:]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``--peers`` and ``--cache``."""
    parser.add_argument("--peers", type=Path, default=DEFAULT_PEERS, help="the folder with the peers' drivers")
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE, help="where the peers are installed")


def chosen(told: argparse.Namespace) -> Peers:
    """The peers that the arguments name."""
    return Peers(told.peers.resolve(), told.cache.resolve())


def main() -> int:
    """Install them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    console = Console(stderr=True)
    failed = chosen(parser.parse_args()).install(console)
    for line in failed:
        console.print(f"[yellow]not to be had:[/] {line}", highlight=False)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
