"""Alerts for Prometheus and the dashboard for Grafana name what the server has, and the runbook explains each alert."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from fhir_server.observability import interactions
from fhir_server.observability.metrics import Metrics
from tests.deployment.programs import program
from tests.served import ROOT

ALERTS = ROOT / "deploy/prometheus/alerts.yaml"
DASHBOARD = ROOT / "deploy/grafana/fhir-server.json"
RUNBOOK = ROOT / "docs/operations.md"
_PROMETHEUS = {"up", "instance", "job", "le"}  # what Prometheus itself adds
_WORDS = {
    "sum", "by", "rate", "increase", "histogram_quantile", "on", "and", "unless", "absent", "offset", "max", "deriv", "label_values",
}  # fmt: skip


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]]


def expressions() -> Iterator[str]:
    yield from (rule["expr"] for rule in rules())
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    yield from (target["expr"] for panel in dashboard["panels"] for target in panel["targets"])
    yield from (variable["query"] for variable in dashboard["templating"]["list"] if variable["type"] == "query")


def served() -> dict[str, set[str]]:
    """The metrics that the server has, with the names of their labels."""
    metrics = Metrics()
    metrics.begin()
    metrics.finish("read", "GET", 200, 0.1)
    found: dict[str, set[str]] = {}
    for line in metrics.text().decode().splitlines():
        if sample := re.match(r"([a-z_]+)(?:\{([^}]*)\})? ", line):
            found.setdefault(sample[1], set()).update(re.findall(r"([a-z_]+)=", sample[2] or ""))
    return found


def faults(expression: str) -> list[str]:
    """Names in a PromQL expression that are neither metrics or labels of the server nor words of PromQL, and unknown interactions."""
    known = served()
    labels = {label for of in known.values() for label in of}
    bare = re.sub(r'"[^"]*"', "", re.sub(r"\[[^\]]*\]", "", expression))
    names = set(re.findall(r"[A-Za-z_][A-Za-z_0-9]*", bare)) - _WORDS - _PROMETHEUS - labels - set(known)
    named = {each for text in re.findall(r'interaction=~?"([^"]*)"', expression) for each in text.split("|")}
    return sorted(name for name in names if not re.fullmatch(r"m|h", name)) + sorted(named - interactions_served())


def interactions_served() -> set[str]:
    return {interactions.interaction_name(method, path) for method, path in (("GET", "/fhir/Patient/x"), ("GET", "/fhir/Patient"))}


@pytest.mark.parametrize("expression", list(expressions()))
def test_alerts_and_dashboard_name_what_the_server_has(expression: str) -> None:
    assert faults(expression) == []


@pytest.mark.parametrize("planted", ["rate(fhir_server_request_total[5m])", 'fhir_server_requests_total{code="500"}', "summ(up)"])
def test_check_finds_planted_names(planted: str) -> None:
    assert faults(planted)


def test_each_alert_is_complete_and_in_the_runbook() -> None:
    text = RUNBOOK.read_text(encoding="utf-8")
    for rule in rules():
        assert rule["annotations"]["summary"] and rule["labels"]["severity"] in ("page", "ticket"), rule["alert"]
        assert f"`{rule['alert']}`" in text, f"docs/operations.md does not say what {rule['alert']} means"


def test_promtool_accepts_the_alerts() -> None:
    subprocess.run([program("promtool"), "check", "rules", str(ALERTS)], check=True, capture_output=True)


def test_promtool_refuses_a_planted_fault(tmp_path: Path) -> None:
    """The control of the test above."""
    planted = tmp_path / "alerts.yaml"
    planted.write_text(ALERTS.read_text(encoding="utf-8").replace("expr: ", "expr: sum(", 1), encoding="utf-8")
    assert subprocess.run([program("promtool"), "check", "rules", str(planted)], capture_output=True).returncode != 0
