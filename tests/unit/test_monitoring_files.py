"""Alert rules, dashboard and documents name metrics and labels that there are."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import prometheus_client
import pytest

from postroom.cli.metrics import catalogue

METRICS = {metric.name: metric for found in catalogue().values() for metric in found}
OF_HISTOGRAMS = {
    f"{name}{end}": metric
    for name, metric in METRICS.items()
    if metric.kind == "histogram"
    for end in ("_bucket", "_sum", "_count")
}
RUNBOOKS = {
    "backlog-grows",
    "consumer-lag",
    "dead-letters-grow",
    "disk-full",
    "fenced-relay",
    "kafka-down",
    "long-transaction",
    "replay-after-a-fix",
}
#: That Prometheus adds.
OF_TARGETS = {"job", "instance"}
FILES = (
    "deploy/prometheus/alerts.yml",
    "deploy/prometheus/alerts.test.yml",
    "deploy/grafana/dashboards/postroom.json",
    "docs/how-to/monitor.md",
)
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (it comes with Prometheus)"
)


@pytest.mark.parametrize("name", FILES)
def test_every_metric_named_there_exists(rooms: Path, name: str) -> None:
    text = (rooms / name).read_text(encoding="utf-8")
    named = set(re.findall(r"\bpostroom_(?:relay|inbox|outbox|database|tables|dead|build)_\w+(?!\w|…)", text))
    named = {each.rstrip("_") for each in named} - {"postroom_relay", "postroom_inbox", "postroom_dead_letters"}
    partial = {each.rstrip("_") for each in re.findall(r"\b(postroom_\w+?)_?…", text)}
    assert named - partial - METRICS.keys() - OF_HISTOGRAMS.keys() == set()
    assert len(named) > 15


def selectors(text: str) -> Iterator[tuple[str, set[str]]]:
    """Metrics with the labels in braces behind them."""
    for name, inside in re.findall(r"\b(postroom_\w+)\{([^}]*)\}", text.replace('\\"', '"')):
        yield name, set(re.findall(r"(\w+)\s*=", inside))


@pytest.mark.parametrize("name", FILES)
def test_every_label_that_is_asked_for_is_one_of_the_metric(rooms: Path, name: str) -> None:
    text = (rooms / name).read_text(encoding="utf-8")
    for metric, labels in selectors(text):
        known = METRICS.get(metric) or OF_HISTOGRAMS[metric]
        assert labels <= {*known.labels, *OF_TARGETS}, metric
    for labels, metric in re.findall(r"by \(([\w, ]+)\) \((?:rate\(|increase\()?(postroom_\w+)", text):
        known = METRICS.get(metric) or OF_HISTOGRAMS[metric]
        grouped = set(labels.split(", ")) - {"le"}
        assert grouped <= {*known.labels, *OF_TARGETS}, metric


def test_every_alert_has_what_somebody_needs_at_night(rooms: Path) -> None:
    text = (rooms / "deploy/prometheus/alerts.yml").read_text(encoding="utf-8")
    alerts = re.split(r"\n\s+- alert: ", text)[1:]
    assert len(alerts) >= 15
    for alert in alerts:
        name = alert.split("\n")[0]
        assert re.search(r"\n\s+for: \d+[mhd]", alert), name
        assert re.search(r"labels: \{severity: (critical|warning|info)\}", alert), name
        assert re.search(r'summary: ".+[^.]"', alert), name
        [runbook] = re.findall(r"runbook_url: docs/runbooks/([\w-]+)\.md", alert)
        assert runbook in RUNBOOKS, name
    assert {each for alert in alerts for each in re.findall(r"runbooks/([\w-]+)", alert)} == RUNBOOKS


def test_every_alert_is_tested_both_ways(rooms: Path) -> None:
    folder = rooms / "deploy/prometheus"
    alerts = re.findall(r"- alert: (\w+)", (folder / "alerts.yml").read_text(encoding="utf-8"))
    tests = (folder / "alerts.test.yml").read_text(encoding="utf-8")
    for alert in alerts:
        assert f"alertname: {alert}\n        exp_alerts:\n          - exp_labels" in tests, alert
        assert f"alertname: {alert}, exp_alerts: []" in tests, alert


@needs_promtool
def test_promtool_agrees_with_rules_their_tests_and_the_configuration(rooms: Path) -> None:
    folder = rooms / "deploy/prometheus"
    for arguments in (
        ("check", "rules", "alerts.yml"),
        ("test", "rules", "alerts.test.yml"),
        ("check", "config", "prometheus.yml"),
    ):
        done = subprocess.run(["promtool", *arguments], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboard_is_whole(rooms: Path) -> None:
    dashboard: dict[str, Any] = json.loads((rooms / "deploy/grafana/dashboards/postroom.json").read_text("utf-8"))
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [tuple(panel["gridPos"][side] for side in "xy") for panel in panels]
    assert len(set(places)) == len(places)
    for panel in panels:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
        assert panel["type"] == "row" or panel["targets"]
    variables = {each["name"] for each in dashboard["templating"]["list"]}
    used = set(re.findall(r"\$\{?(?!__)(\w+)", json.dumps(dashboard)))
    assert used == variables


def test_the_example_of_the_how_to_counts(rooms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = prometheus_client.CollectorRegistry()
    monkeypatch.setattr(prometheus_client, "REGISTRY", registry)
    text = (rooms / "docs/how-to/monitor.md").read_text(encoding="utf-8")
    [code] = re.findall(r"<!-- example: \S+ -->\n```python\n(.*?)```", text, re.DOTALL)
    namespace: dict[str, Any] = {}
    exec(compile(code, "monitor.py", "exec"), namespace)
    namespace["counting"]("settled", count=3, parked=0)
    assert registry.get_sample_value("postroom_relay_settled_messages_total") == 3
