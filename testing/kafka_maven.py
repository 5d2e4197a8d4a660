"""Apache Kafka's own programs, run from jars that Maven fetches: no Docker, no installation."""

import os
import shutil
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp

from .process import Supervisor, supervised
from .server import ServerUnavailableError

KAFKA_VERSION = "4.1.0"
_SCALA_VERSION = "2.13"
_DOWNLOAD_SECONDS = 600.0
_FORMAT_SECONDS = 60.0

# kafka-tools holds the console programs; Kafka Connect, which it drags in, is not needed for them.
_POM = f"""\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>postroom</groupId>
  <artifactId>kafka</artifactId>
  <version>{KAFKA_VERSION}</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_{_SCALA_VERSION}</artifactId>
      <version>{KAFKA_VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka-tools</artifactId>
      <version>{KAFKA_VERSION}</version>
      <exclusions>
        <exclusion><groupId>org.apache.kafka</groupId><artifactId>connect-api</artifactId></exclusion>
        <exclusion><groupId>org.apache.kafka</groupId><artifactId>connect-json</artifactId></exclusion>
        <exclusion><groupId>org.apache.kafka</groupId><artifactId>connect-runtime</artifactId></exclusion>
      </exclusions>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId>
      <artifactId>slf4j-simple</artifactId>
      <version>1.7.36</version>
    </dependency>
  </dependencies>
</project>
"""


def tool_command(tool_class: str, *arguments: str) -> list[str]:
    """The command line of one of Kafka's Java programs. Fetches the jars first, which may block.

    Raises ServerUnavailableError without Java, or when Maven cannot fetch the jars.
    """
    return _java(tool_class, arguments, heap_mb=256)


def prepare(supervisor: Supervisor, settings: dict[str, object]) -> list[str]:
    """Format the storage of a fresh single node in the supervisor's folder; return the broker's command.

    ``settings`` are server properties. Blocks for the jars and the format. Raises ServerUnavailableError.
    """
    storage = supervisor.folder / "storage"
    properties = supervisor.folder / "server.properties"
    properties.write_text("".join(f"{name}={value}\n" for name, value in {**settings, "log.dirs": storage}.items()))
    cluster_id = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    # In one word, since one id in 64 starts like an option.
    format_storage = ["format", f"--cluster-id={cluster_id}", "--config", str(properties)]
    supervisor.finish(
        _java("kafka.tools.StorageTool", format_storage, heap_mb=128),
        log=supervisor.folder / "format.log",
        timeout=_FORMAT_SECONDS,
    )
    return _java("kafka.Kafka", [str(properties)], heap_mb=384)


def _java(main_class: str, arguments: Sequence[str], *, heap_mb: int) -> list[str]:
    options = [f"-Xmx{heap_mb}m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]
    options += ["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Djava.awt.headless=true"]
    return [_program("java"), *options, "-cp", f"{fetch(f'kafka-{KAFKA_VERSION}', _POM)}/*", main_class, *arguments]


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise ServerUnavailableError(f"there is no {name!r} on PATH")
    return found


def fetch(name: str, pom: str) -> Path:
    """The folder ``name`` in the user's cache with what ``pom`` depends on; fetched by Maven the first time.

    Raises ServerUnavailableError without Maven, or when it cannot fetch the jars.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "postroom"
    jars = cache / name
    if jars.is_dir():
        return jars
    maven = _program("mvn")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        incoming = Path(mkdtemp(prefix=f"{jars.name}.", dir=cache))
    except OSError as error:
        raise ServerUnavailableError(f"the cache cannot be written: {error}") from error
    try:
        with supervised() as supervisor:
            project = supervisor.folder / "pom.xml"
            project.write_text(pom)
            copy = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={incoming}"]
            supervisor.finish(
                [maven, "-q", "-B", "-f", str(project), *copy],
                log=supervisor.folder / "maven.log",
                timeout=_DOWNLOAD_SECONDS,
            )
        # Complete or not at all, also when several processes fetch at once: the first rename wins.
        with suppress(OSError):
            incoming.rename(jars)
        if not jars.is_dir():
            raise ServerUnavailableError(f"{jars} cannot be written")
    finally:
        shutil.rmtree(incoming, ignore_errors=True)
    return jars
