"""The Helm chart and its rendering, which is kept beside the tests because Helm is no package of Debian or PyPI.

``python -m tests.deployment.chart`` renders it again, after each change of the chart.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

from fhir_server.cli.serve import _uvicorn_options
from tests.deployment.settings_in_files import unknown
from tests.served import ROOT

CHART = ROOT / "deploy/helm/fhir-server"
VALUES = ROOT / "deploy/helm/example-values.yaml"
RENDERED = Path(__file__).with_name("rendered-chart.yaml")
VERSION = "v3.19.5"
BUILT = ROOT / ".cache/helm/helm"


def digest() -> str:
    """The SHA-256 of the chart's files and the example values, with their names."""
    total = hashlib.sha256()
    for path in sorted([*(path for path in CHART.rglob("*") if path.is_file()), VALUES]):
        total.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes() + b"\0")
    return total.hexdigest()


def find_helm() -> Path | None:
    """Helm 3: the one on the path, or one that Go has built or can build into ``.cache``; None without Helm and Go."""
    found = shutil.which("helm")
    if found:
        return Path(found)
    if not BUILT.exists() and shutil.which("go"):
        environment = {**os.environ, "GOBIN": str(BUILT.parent), "CGO_ENABLED": "0"}
        subprocess.run(["go", "install", f"helm.sh/helm/v3/cmd/helm@{VERSION}"], env=environment, check=True)
    return BUILT if BUILT.exists() else None


def render(helm: Path, chart: Path = CHART) -> str:
    """What Helm makes of the chart and the example values.  Raises CalledProcessError if Helm finds a fault."""
    subprocess.run([helm, "lint", "--strict", chart, "--values", VALUES], check=True, capture_output=True)
    command = [helm, "template", "fhir", chart, "--namespace", "health", "--values", VALUES]
    return f"# sha256 of the chart: {digest()}\n{subprocess.run(command, check=True, capture_output=True, text=True).stdout}"


def manifests(text: str) -> dict[str, dict[str, Any]]:
    """The manifests of a rendering, by kind; the chart has one of each."""
    return {manifest["kind"]: manifest for manifest in yaml.safe_load_all(text)}


def faults(text: str) -> list[str]:
    """What is wrong in a rendering: unknown settings, missing kinds, rights that the server does not need, names that do not meet."""
    found = [f"{name} is no setting" for name in sorted(unknown(text))]
    made = manifests(text)
    kinds = {"Deployment", "Ingress", "Job", "NetworkPolicy", "PodDisruptionBudget", "Service"}
    found += [f"there is no {kind}" for kind in sorted(kinds - made.keys())]
    if found:
        return found
    deployment = made["Deployment"]["spec"]
    for template in (deployment["template"], made["Job"]["spec"]["template"]):
        found += _rights(template["spec"])
    server = deployment["template"]["spec"]["containers"][0]
    labels = deployment["template"]["metadata"]["labels"].items()
    for kind, selector in (
        ("Service", made["Service"]["spec"]["selector"]),
        ("PodDisruptionBudget", made["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"]),
        ("NetworkPolicy", made["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"]),
        ("Deployment", deployment["selector"]["matchLabels"]),
    ):
        if not selector.items() <= labels:
            found.append(f"{kind} does not find the server")
        if selector.items() <= made["Job"]["spec"]["template"]["metadata"]["labels"].items():
            found.append(f"{kind} finds the Job")
    ports = {port["name"]: port["containerPort"] for port in server["ports"]}
    probes = {probe: server[f"{probe}Probe"]["httpGet"] for probe in ("startup", "liveness", "readiness")}
    if {probe["path"] for probe in (probes["startup"], probes["liveness"])} != {"/livez"} or probes["readiness"]["path"] != "/readyz":
        found.append("a probe asks the wrong path")
    used = {probe["port"] for probe in probes.values()} | {port["targetPort"] for port in made["Service"]["spec"]["ports"]}
    policies = made["NetworkPolicy"]["spec"]["ingress"]
    used |= {port["port"] for rule in policies for port in rule["ports"]}
    found += [f"nothing listens on {name}" for name in sorted(used - ports.keys())]
    found += ["everybody reaches the server" for rule in policies if not rule.get("from")]
    if not any(rule["host"] == host for rule in made["Ingress"]["spec"]["rules"] for host in made["Ingress"]["spec"]["tls"][0]["hosts"]):
        found.append("the host has no certificate")
    environment = {one["name"]: one["value"] for one in server["env"]}
    if not environment["FORWARDED_ALLOW_IPS"]:
        found.append("the server trusts no proxy")
    least = int(environment["FHIR_SERVER_DRAIN_SECONDS"]) + _uvicorn_options("", 80)["timeout_graceful_shutdown"]
    if deployment["template"]["spec"]["terminationGracePeriodSeconds"] <= least + 10:
        found.append("the server is killed while it finishes requests")
    return found


def _rights(pod: dict[str, Any]) -> list[str]:
    container, context = pod["containers"][0], pod["securityContext"]
    own = container["securityContext"]
    wanted = {
        "runs as root": context["runAsNonRoot"] and context["runAsUser"] > 0,
        "has no seccomp profile": context["seccompProfile"] == {"type": "RuntimeDefault"},
        "may write to its image": own["readOnlyRootFilesystem"],
        "may gain rights": own["allowPrivilegeEscalation"] is False and own["capabilities"] == {"drop": ["ALL"]},
        "has a token of the cluster": pod["automountServiceAccountToken"] is False,
        "has no limit of memory": "memory" in container["resources"]["limits"],
    }
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    secrets = [mount["mountPath"] for mount in container["volumeMounts"] if "secret" in volumes[mount["name"]]]
    files = [one["value"] for one in container["env"] if one["name"].endswith("_FILE")]
    found = [f"a container {fault}" for fault, is_met in wanted.items() if not is_met]
    found += [f"{file} is not mounted" for file in files if str(Path(file).parent) not in secrets]
    return found


if __name__ == "__main__":
    helm = find_helm()
    assert helm, "Helm or Go is needed."
    RENDERED.write_text(render(helm), encoding="utf-8")
