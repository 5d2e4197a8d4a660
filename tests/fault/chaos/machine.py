"""What the machine can do beyond processes and connections: small disks that fill up, and clocks that move."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_DISK_MEGABYTES = 1024
_LIBRARY = "libfaketime.so.1"
_CHUNK = 1 << 20


def able() -> dict[str, str]:
    """What can be done here, of "disk" and "clock"; of what can't, why not."""
    reasons = {"disk": _no_disk(), "clock": "" if _library() else "libfaketime is not installed"}
    return {what: reason for what, reason in reasons.items() if reason}


class Disk:
    """A file system of its own in memory, which can be filled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        """Leave not a byte."""
        zeros = bytes(_CHUNK)
        with self._ballast.open("ab", buffering=0) as ballast:
            size = _CHUNK
            while size:
                try:
                    ballast.write(zeros[:size])
                except OSError:
                    size //= 2

    def free(self) -> None:
        """Undo ``fill``."""
        self._ballast.unlink(missing_ok=True)


@contextmanager
def disk(folder: Path, *, small: bool) -> Iterator[Disk]:
    """A disk at ``folder``. Not ``small``: just a folder, which is not to be filled."""
    folder.mkdir(parents=True)
    folder.chmod(0o711)
    if small:
        _mount("-t", "tmpfs", "-o", f"size={_DISK_MEGABYTES}m,mode=711", "tmpfs", str(folder))
    try:
        yield Disk(folder)
    finally:
        if small:
            subprocess.run(["umount", "--lazy", str(folder)], check=False, capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def temporary_files_on(disk: Disk) -> Iterator[None]:
    """A server that is started meanwhile has its files on ``disk``."""
    before, tempfile.tempdir = tempfile.tempdir, str(disk.folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


class Clock:
    """The wall clock of some processes, by libfaketime. What counts seconds only (CLOCK_MONOTONIC) goes on as it is."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._library = _library()
        file.touch(0o644)
        self.set("+0")

    def set(self, offset: str) -> None:
        """So many seconds ahead of the machine, or behind it: "+30"."""
        incoming = self._file.with_suffix(".new")
        incoming.write_text(f"{offset}\n")
        incoming.chmod(0o644)
        incoming.rename(self._file)

    @property
    def environment(self) -> dict[str, str]:
        """What its processes are started with."""
        if self._library is None:
            return {}
        return {
            "LD_PRELOAD": str(self._library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_CACHE_DURATION": "1",
            # Else waits for a condition end at once, and Python's threads spin for the interpreter: 8 times slower.
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",
        }


def _library() -> Path | None:
    for folder in (Path("/usr/lib"), Path("/usr/lib64")):
        for found in (*folder.glob(f"faketime/{_LIBRARY}"), *folder.glob(f"*/faketime/{_LIBRARY}")):
            return found
    return None


def _no_disk() -> str:
    with tempfile.TemporaryDirectory() as folder:
        try:
            _mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", folder)
        except (OSError, subprocess.SubprocessError):
            return "mounting a small disk takes root"
        with suppress(subprocess.SubprocessError):
            subprocess.run(["umount", folder], check=True, capture_output=True)
    return ""


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)
