"""What `pip install postroom` brings: the rooms' files, all of them, and nothing else."""

import configparser
import stat
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
KINDS = {".py", ".sql", ".typed"}  # a room that needs another kind of file adds it here


def build(target: str, source: Path, into: Path) -> Path:
    """Build without the network: hatchling is installed, so no isolated environment is needed."""
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(into)],
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = into.iterdir()
    return built


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def package_files() -> dict[str, bytes]:
    """The files as they lie in the repository, under the names that they have in the wheel."""
    roots = {path.parent: f"postroom/{path.parent.name}" for path in ROOT.glob("*/__init__.py")}
    files = {
        f"{name}/{path.relative_to(room).as_posix()}": path.read_bytes()
        for room, name in roots.items()
        for path in room.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    for name in ("__init__.py", "py.typed"):
        files[f"postroom/{name}"] = (ROOT / "src" / "postroom" / name).read_bytes()
    return files


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def unpacked_sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sdist = build("sdist", ROOT, tmp_path_factory.mktemp("sdist"))
    into = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(into, filter="data")
    (unpacked,) = into.iterdir()
    return unpacked


def test_the_wheel_holds_exactly_the_files_of_the_rooms(wheel: Path) -> None:
    packed = {name: data for name, data in contents(wheel).items() if ".dist-info/" not in name}
    expected = package_files()
    assert sorted(packed) == sorted(expected)
    assert [name for name in expected if packed[name] != expected[name]] == []


def test_the_wheel_holds_only_the_kinds_of_files_that_the_package_reads(wheel: Path) -> None:
    strays = [name for name in contents(wheel) if ".dist-info/" not in name and Path(name).suffix not in KINDS]
    assert strays == []


def test_the_wheel_holds_no_links(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        links = [entry.filename for entry in archive.infolist() if stat.S_ISLNK(entry.external_attr >> 16)]
    assert links == []


def test_the_wheel_brings_the_command_the_pytest_plugin_and_the_licence(wheel: Path) -> None:
    packed = contents(wheel)
    (entry_points,) = (data for name, data in packed.items() if name.endswith(".dist-info/entry_points.txt"))
    parser = configparser.ConfigParser()
    parser.read_string(entry_points.decode())
    assert dict(parser["console_scripts"]) == {"postroom": "postroom.cli.main:main"}
    assert dict(parser["pytest11"]) == {"postroom": "postroom.testing.plugin"}
    assert [name for name in packed if name.endswith(".dist-info/licenses/LICENSE")]


def test_the_command_runs_from_the_wheel_alone(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    program = (
        "import sys; sys.path.insert(0, sys.argv.pop(1));"
        "import postroom; print(postroom.__file__);"
        "from postroom.cli.main import main; sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", program, str(tmp_path), "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(tmp_path / "postroom" / "__init__.py"))


def test_a_wheel_built_from_the_sdist_is_the_same(wheel: Path, unpacked_sdist: Path, tmp_path: Path) -> None:
    again = contents(build("wheel", unpacked_sdist, tmp_path))
    first = contents(wheel)
    assert sorted(again) == sorted(first)
    assert [name for name in first if again[name] != first[name]] == []


def test_the_sdist_holds_every_room_once_and_what_a_wheel_needs(unpacked_sdist: Path) -> None:
    held = {path.relative_to(unpacked_sdist).as_posix() for path in unpacked_sdist.rglob("*") if path.is_file()}
    rooms = {name.removeprefix("postroom/") for name in package_files() if name.count("/") > 1}
    package = {"src/postroom/__init__.py", "src/postroom/py.typed"}
    assert held >= rooms | package | {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"}
    assert {name for name in held if name.startswith(("src/", "tests/"))} == package
