"""Runs servers for another process, and stops them when that process is gone.

A script of its own (standard library only, started by ``process.Supervisor``): it reads one JSON request
a line from its input and answers each with one line. End of input, or another parent than at the start,
means that the owner is done or dead, by whatever signal: every server is stopped, the temporary folder is
removed, and the script ends.
"""

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

Children = dict[int, tuple[subprocess.Popen[bytes], int]]

_OWNER_CHECK_SECONDS = 0.25
_STOP_SECONDS = 5.0


def process_table() -> dict[int, tuple[int, str]]:
    """Every process of the machine: ``{pid: (parent pid, state letter)}``."""
    table: dict[int, tuple[int, str]] = {}
    if Path("/proc/self/stat").exists():
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                # Ends while we look; its name may hold spaces and parentheses, so read after the last one.
                with contextlib.suppress(OSError):
                    fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
                    table[int(entry.name)] = (int(fields[1]), fields[0])
        return table
    listing = subprocess.run(["/bin/ps", "-axo", "pid=,ppid=,state="], capture_output=True, text=True, check=True)
    for line in listing.stdout.splitlines():
        pid, parent, state = line.split()
        table[int(pid)] = (int(parent), state[0])
    return table


def descendants(pid: int) -> list[int]:
    """The living children of ``pid``, and theirs. Process groups do not do: PostgreSQL's leave it."""
    table = process_table()
    found, unseen = [], [pid]
    while unseen:
        parent = unseen.pop()
        children = [child for child, (its_parent, state) in table.items() if its_parent == parent and state != "Z"]
        found += children
        unseen += children
    return found


def send(pids: list[int], number: int) -> None:
    """Signal those of ``pids`` that are still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def running(pids: list[int]) -> list[int]:
    """Those of ``pids`` that have not ended."""
    table = process_table()
    return [pid for pid in pids if table.get(pid, (0, "Z"))[1] != "Z"]


def _answer(request: dict[str, Any], children: Children, folder: Path) -> dict[str, Any]:
    if "status" in request:
        process, _ = children[request["status"]]
        return {"code": process.poll()}
    user = request["user"]
    identity = {"user": user[0], "group": user[1], "extra_groups": []} if user else {}
    try:
        with Path(request["log"]).open("ab") as log:
            process = subprocess.Popen(  # noqa: S603 - the owner's own commands
                request["run"],
                stdin=subprocess.PIPE,  # never written: its end tells the server that we are gone
                stdout=log,
                stderr=log,
                cwd=folder,
                env=request["env"],
                start_new_session=True,
                **identity,
            )
    except OSError as error:
        return {"error": f"{request['run'][0]}: {error}"}
    children[process.pid] = (process, request["last_signal"])
    return {"pid": process.pid}


def _serve(owner: int, children: Children, folder: Path) -> None:
    pending = b""
    while os.getppid() == owner:
        if not select.select([0], [], [], _OWNER_CHECK_SECONDS)[0]:
            continue
        received = os.read(0, 65536)
        if not received:
            return
        *lines, pending = (pending + received).split(b"\n")
        for line in lines:
            request = json.loads(line)
            _say({"id": request["id"], **_answer(request, children, folder)})


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def _end(children: Children, folder: Path) -> None:
    alive = [pid for pid, (process, _) in children.items() if process.poll() is None]
    everything = alive + [pid for leader in alive for pid in descendants(leader)]
    for pid in alive:
        send([pid], children[pid][1])
    send(everything, signal.SIGCONT)  # a paused server would not see it
    deadline = time.monotonic() + _STOP_SECONDS
    while running(everything) and time.monotonic() < deadline:
        for process, _ in children.values():
            process.poll()
        time.sleep(0.01)
    send(running(everything), signal.SIGKILL)
    for process, _ in children.values():
        process.wait()
    while folder.exists() and time.monotonic() < deadline + _STOP_SECONDS:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    owner = int(sys.argv[1])
    # Only the owner's end counts. Handlers, since ignored signals would stay ignored in the servers.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    children: Children = {}
    folder = Path(tempfile.mkdtemp(prefix="postroom-", dir=sys.argv[2]))
    try:
        folder.chmod(0o711)  # a server that runs as another user must pass through
        _say({"folder": str(folder)})
        _serve(owner, children, folder)
    finally:
        _end(children, folder)


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        main()
