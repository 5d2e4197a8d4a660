"""What is deployed: the image, compose and the manifests, as far as they can be checked without an engine."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from postroom.cli.settings import load
from postroom.relay import RelaySettings

DAEMONS = {"postroom-relay", "postroom-inbox"}


def tool(name: str) -> str:
    """A program of requirements/tools.txt, beside the checkout or on PATH."""
    beside = Path(__file__).parents[2] / ".cache" / "tools" / "bin" / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"needs {name} (`make tools`)")
    return found


def documents(text: str) -> list[dict[str, Any]]:
    return [document for document in YAML(typ="safe").load_all(text) if document]


@pytest.fixture
def manifests(rooms: Path) -> list[dict[str, Any]]:
    """Of the base and of the example, file by file."""
    folder = rooms / "deploy" / "kubernetes"
    files = sorted((folder / "base").glob("*.yaml")) + sorted((folder / "example").glob("*.yaml"))
    return [document for file in files for document in documents(file.read_text())]


@pytest.fixture
def pods(manifests: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The pods' specifications by the name of what makes them."""
    return {each["metadata"]["name"]: each["spec"]["template"]["spec"] for each in manifests if "template" in str(each)}


def test_the_dockerfile_passes_its_linter(rooms: Path) -> None:
    done = subprocess.run(
        [tool("hadolint"), rooms / "Dockerfile"], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout


def test_the_image_runs_as_a_number_and_everything_it_installs_is_pinned(rooms: Path) -> None:
    text = (rooms / "Dockerfile").read_text()
    last = text.split("\nFROM ")[-1]
    assert re.search(r"^USER 10001:10001$", last, re.MULTILINE)
    assert "HEALTHCHECK" in last
    assert not re.search(r"pip|COPY \. ", last.split("ENTRYPOINT")[0])
    installs = re.findall(r"pip[^&]* install [^&]*", text.replace("\\\n", " "))
    assert len(installs) == 3
    assert all("--require-hashes" in install or "--no-index" in install for install in installs)


def test_the_image_is_built_from_named_files_alone(rooms: Path) -> None:
    """Whatever else lies in the folder, a secret too, is in no layer."""
    lines = [line for line in (rooms / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    allowed = {line[1:] for line in lines if line.startswith("!")}
    packages = {path.parent.name for path in rooms.glob("*/__init__.py")}
    wanted = {"src", "pyproject.toml", "README.md", "LICENSE", "requirements/build.txt", "requirements/image.txt"}
    assert allowed == packages | wanted


def test_a_manifest_fits_the_schema_of_kubernetes(rooms: Path, tmp_path: Path) -> None:
    program = tool("kubernetes-validate")
    files = [str(path) for path in sorted((rooms / "deploy" / "kubernetes").glob("*/*.yaml"))]
    files = [path for path in files if not path.endswith("kustomization.yaml")]
    done = subprocess.run(
        [program, "--strict", "--kubernetes-version", "1.33", *files],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (done.stdout + done.stderr).count("passed") >= 13


def test_kustomize_renders_the_example(rooms: Path) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("needs kubectl, which has kustomize in it")
    example = rooms / "deploy" / "kubernetes" / "example"
    done = subprocess.run(["kubectl", "kustomize", example], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    found = documents(done.stdout)
    images = {each["image"] for one in found if "template" in str(one) for each in containers(one)}
    assert images == {"registry.example/postroom:0.1.0", "registry.example/shop:0.1.0"}
    names = {(each["kind"], each["metadata"]["name"]) for each in found}
    for one in found:
        if "template" not in str(one):
            continue
        spec = one["spec"]["template"]["spec"]
        assert ("ConfigMap", spec["volumes"][0]["configMap"]["name"]) in names
        for each in containers(one):
            assert ("Secret", each["envFrom"][0]["secretRef"]["name"]) in names


def containers(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = manifest["spec"]["template"]["spec"]["containers"]
    return found


def test_every_pod_is_confined(pods: dict[str, dict[str, Any]]) -> None:
    assert pods.keys() == {*DAEMONS, "postroom-migrate"}
    for name, pod in pods.items():
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["enableServiceLinks"] is False, name
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in pod["containers"]:
            expected = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True}
            assert container["securityContext"] == {**expected, "capabilities": {"drop": ["ALL"]}}, name
            assert container["resources"]["limits"]["memory"], name


def test_a_stop_is_given_the_time_that_it_takes(pods: dict[str, dict[str, Any]]) -> None:
    assert pods["postroom-relay"]["terminationGracePeriodSeconds"] >= RelaySettings().shutdown_seconds + 15
    for name in DAEMONS:
        [container] = pods[name]["containers"]
        assert {probe: container[probe]["httpGet"]["path"] for probe in container if probe.endswith("Probe")} == {
            "startupProbe": "/livez",
            "livenessProbe": "/livez",
            "readinessProbe": "/readyz",
        }


def test_each_pod_has_a_role_of_the_database_of_its_own(pods: dict[str, dict[str, Any]]) -> None:
    secrets = {name: pod["containers"][0]["envFrom"][0]["secretRef"]["name"] for name, pod in pods.items()}
    assert len(set(secrets.values())) == len(pods)


def test_pods_talk_to_names_kafka_and_postgresql_only(manifests: list[dict[str, Any]]) -> None:
    [policy] = [each["spec"] for each in manifests if each["kind"] == "NetworkPolicy"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert all(rule["to"] for rule in policy["egress"])
    assert [[port["port"] for port in rule["ports"]] for rule in policy["egress"]] == [[53, 53], [9093], [5432]]
    assert [[port["port"] for port in rule["ports"]] for rule in policy["ingress"]] == [[8080]]


def test_the_settings_file_of_the_manifests_is_one(rooms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTROOM_KAFKA_OPTIONS", '{"sasl_plain_password": "p"}')
    settings = load({}, str(rooms / "deploy" / "kubernetes" / "base" / "postroom.toml")).settings
    assert settings.health_address == "0.0.0.0:8080"
    assert settings.kafka_options["sasl_plain_password"] == "p"
    assert settings.kafka_options["security_protocol"] == "SASL_SSL"


def test_compose_marks_its_passwords_and_publishes_nothing_beyond_this_machine(rooms: Path) -> None:
    text = (rooms / "docker-compose.yml").read_text()
    [compose] = documents(text)
    for name, service in compose["services"].items():
        assert all(str(port).startswith("127.0.0.1:") for port in service.get("ports", [])), name
        health = service.get("healthcheck", {})
        assert health.get("test") or health.get("disable"), name
    for line in text.splitlines():
        if re.match(r"\s+\w*PASSWORD: ", line):
            assert "${POSTROOM_" in line, line
            assert line.endswith("# for development"), line
    assert {name for name, service in compose["services"].items() if service.get("profiles") == ["monitoring"]} == {
        "prometheus",
        "grafana",
    }


def test_the_example_inbox_can_be_imported(rooms: Path) -> None:
    program = "import example; assert example.inbox.topics == ['orders'], example.inbox.topics"
    folder = rooms / "deploy" / "example"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(folder)!r}); {program}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_connector_keeps_its_secrets_in_the_environment(rooms: Path) -> None:
    config = json.loads((rooms / "deploy" / "debezium" / "connector.json").read_text())["config"]
    allowed = re.search(r"allowlist.pattern=(.*)", (rooms / "deploy" / "debezium" / "worker.properties").read_text())
    assert allowed is not None
    for name in ("hostname", "port", "user", "password", "dbname"):
        value = re.fullmatch(r"\$\{env:(\w+)\}", config[f"database.{name}"])
        assert value is not None, name
        assert re.fullmatch(allowed[1], value[1]), name
