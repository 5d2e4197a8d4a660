"""The tutorial, word for word: its files, its commands in their order, and what they are said to show."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

_STEP = re.compile(r"<!-- (\w+)(?:: (\S+))? -->\n```\w+\n(.*?)```", re.DOTALL)


@dataclass
class Reader:
    """Somebody who does what the page says, in an empty folder."""

    folder: Path
    environment: dict[str, str]
    running: dict[str, "subprocess.Popen[str]"] = field(default_factory=dict)
    shown: str = ""
    repeated: str = ""

    def do(self, step: str, name: str, text: str) -> None:
        getattr(self, step)(name, text)

    def example(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def edit(self, name: str, text: str) -> None:
        """The line that begins as ``text`` does becomes ``text``."""
        file, start = self.folder / name, text.partition("=")[0]
        [old] = [line for line in file.read_text().splitlines(keepends=True) if line.startswith(start)]
        file.write_text(file.read_text().replace(old, text))

    def start(self, name: str, text: str) -> None:
        self.running[name] = subprocess.Popen(
            ["bash", "-c", f"exec {text.strip()}"],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.PIPE if name == "servers" else subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        if name == "servers":
            self.wait_for((self.folder / "postroom.toml").exists, "postroom.toml")

    def restart(self, name: str, text: str) -> None:
        self.running[name].send_signal(signal.SIGINT)
        assert self.running[name].wait(30) in {0, 130}
        self.start(name, text)

    def run(self, _: str, text: str) -> None:
        self.shown, self.repeated = self.output(text), ""

    def until(self, _: str, text: str) -> None:
        self.shown, self.repeated = self.output(text), text

    def shows(self, _: str, text: str) -> None:
        lines = text.strip().splitlines()
        if self.repeated:
            self.wait_for(lambda: self.missing(lines, self.look()) == [], text)
        else:
            assert self.missing(lines, self.shown) == [], self.shown

    def look(self) -> str:
        self.shown = self.output(self.repeated)
        return self.shown

    @staticmethod
    def missing(lines: list[str], shown: str) -> list[str]:
        return [line for line in lines if line not in shown]

    def output(self, text: str) -> str:
        done = subprocess.run(
            ["bash", "-ec", text],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == 0, (text, done.stdout, done.stderr)
        return done.stdout

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 120
        while not condition():
            assert all(process.poll() is None for process in self.running.values()), "a daemon ended"
            assert time.monotonic() < deadline, f"not within 120 s: {what}{self.shown}"
            time.sleep(0.1)


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, program in (("python", ""), ("postroom", "-m postroom.cli.main")):
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {program} "$@"\n')
        (programs / name).chmod(0o755)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("POSTROOM_")}
    environment = {**inherited, "PATH": f"{programs}:{os.environ['PATH']}", "COLUMNS": "100"}
    folder = tmp_path / "shop"
    folder.mkdir()
    reader = Reader(folder, environment)
    yield reader
    for name in reversed(reader.running):
        process = reader.running[name]
        if name == "servers":
            process.communicate("\n", timeout=60)
        else:
            process.send_signal(signal.SIGINT)
            process.wait(60)


@pytest.mark.timeout(300)
def test_the_tutorial_does_what_it_says(rooms: Path, reader: Reader) -> None:
    steps = _STEP.findall((rooms / "docs" / "tutorial.md").read_text())
    assert len(steps) > 15
    for step, name, text in steps:
        reader.do(step, name, text)
