"""The Helm chart: its rendering is checked here; that Helm renders it so is checked where Helm or Go is installed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from fhir_server import __version__
from tests.deployment import chart
from tests.deployment.proxies import NGINX

TEXT = chart.RENDERED.read_text(encoding="utf-8")


def test_rendering_is_of_this_chart() -> None:
    assert TEXT.startswith(f"# sha256 of the chart: {chart.digest()}\n"), "Run python -m tests.deployment.chart."


@pytest.mark.slow
def test_helm_finds_no_fault_and_renders_the_same() -> None:
    helm: Path | None = chart.find_helm()
    if helm is None:
        pytest.skip("This machine has neither Helm nor Go.")
    assert chart.render(helm) == TEXT


def test_rendered_chart_has_no_fault() -> None:
    assert chart.faults(TEXT) == []


@pytest.mark.parametrize(
    ("line", "planted", "fault"),
    [
        ("FHIR_SERVER_LOG_FORMAT", "FHIR_SERVER_LOGFORMAT", "FHIR_SERVER_LOGFORMAT is no setting"),
        ("kind: PodDisruptionBudget", "kind: Service", "there is no PodDisruptionBudget"),
        ("readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", "a container may write to its image"),
        ("runAsUser: 10001", "runAsUser: 0", "a container runs as root"),
        ("drop: [ALL]", "drop: [KILL]", "a container may gain rights"),
        ("path: /readyz", "path: /livez", "a probe asks the wrong path"),
        ("targetPort: http", "targetPort: web", "nothing listens on web"),
        ("terminationGracePeriodSeconds: 50", "terminationGracePeriodSeconds: 20", "the server is killed while it finishes requests"),
        ("mountPath: /run/secrets/fhir-server", "mountPath: /run", "/run/secrets/fhir-server/store is not mounted"),
        ("app.kubernetes.io/name: fhir-server-create-store", "app.kubernetes.io/name: fhir-server", "Service finds the Job"),
    ],
)
def test_chart_check_finds_planted_faults(line: str, planted: str, fault: str) -> None:
    assert line in TEXT
    assert fault in chart.faults(TEXT.replace(line, planted))


def test_versions_are_the_servers() -> None:
    described = yaml.safe_load((chart.CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert described["version"] == described["appVersion"] == __version__
    for path in ("deploy/compose/compose.yaml", "deploy/Containerfile"):
        assert re.findall(r"fhir-server:(\d[\w.]*)", (chart.ROOT / path).read_text(encoding="utf-8")) == [__version__], path


def test_ingress_has_the_limits_of_the_nginx_configuration() -> None:
    nginx = re.sub(r"location = /websocket \{.*?\}", "", NGINX.read_text(encoding="utf-8"), flags=re.S)  # with limits of its own
    annotations = chart.manifests(TEXT)["Ingress"]["metadata"]["annotations"]
    for name, directive in (
        ("proxy-body-size", r"client_max_body_size +(\w+);"),
        ("proxy-connect-timeout", r"proxy_connect_timeout +(\d+)s;"),
        ("proxy-send-timeout", r"proxy_send_timeout +(\d+)s;"),
        ("proxy-read-timeout", r"proxy_read_timeout +(\d+)s;"),
        ("proxy-next-upstream", r"proxy_next_upstream +(\w+);"),
        ("proxy-buffering", r"proxy_buffering +(\w+);"),
        ("proxy-request-buffering", r"proxy_request_buffering +(\w+);"),
        ("limit-connections", r"limit_conn +\w+ (\d+);"),
    ):
        assert re.findall(directive, nginx) == [annotations[f"nginx.ingress.kubernetes.io/{name}"]], name
