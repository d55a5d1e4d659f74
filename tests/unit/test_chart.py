"""The Helm chart of the agent: linted and rendered by Helm, and held against the schemas of Kubernetes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from rucio_cs3._version import __version__
from rucio_cs3.cli.agent import command as agent

ROOT = Path(__file__).parents[2]
CHART = ROOT / "etc" / "helm" / "rucio-cs3-agent"
HELM = Path(sys.executable).parent / "helm"

#: The oldest that Chart.yaml allows, and a young one.
KUBERNETES = ("1.25", "1.34")

EVERYTHING = {
    "autoscaling.enabled": True,
    "metrics.podMonitor.enabled": True,
    "agent.perHost": 6,
    "agent.perLink": 4,
    "agent.leaseSeconds": 120,
    "agent.activities": ["User Subscriptions", "T0 Export"],
    "agent.graceSeconds": 300,
    "extraEnv": [{"name": "RUCIO_CS3_CREDENTIALS", "value": "/run/credentials.json"}],
    "extraVolumes": [{"name": "more", "emptyDir": {}}],
    "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
    "podAnnotations": {"a": "b"},
    "podLabels": {"c": "d"},
    "nodeSelector": {"disk": "none"},
    "tolerations": [{"key": "x", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "imagePullSecrets": [{"name": "registry"}],
}


def helm(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [HELM, *(str(one) for one in arguments)], capture_output=True, text=True, timeout=120, check=False
    )


def rendered(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What the chart makes, by kind."""
    given = [f"--set-json={name}={json.dumps(value)}" for name, value in values.items()]
    done = helm("template", "site", CHART, *given)
    assert done.returncode == 0, done.stderr
    found = [one for one in yaml.safe_load_all(done.stdout) if one]
    kinds = [one["kind"] for one in found]
    assert len(set(kinds)) == len(kinds)
    return {one["kind"]: one for one in found}


def test_helm_finds_nothing_wrong() -> None:
    done = helm("lint", "--strict", CHART)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["as it is", "everything"])
@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_would_take_it(values: dict[str, Any], version: str) -> None:
    found = rendered(values)
    # Of the Prometheus operator, whose schemas are not among those of Kubernetes.
    assert ("PodMonitor" in found) == bool(values)
    found.pop("PodMonitor", None)
    for resource in found.values():
        kubernetes_validate.validate(resource, version, strict=True)


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["as it is", "everything"])
def test_the_pods(values: dict[str, Any]) -> None:
    found = rendered(values)
    deployment = found["Deployment"]["spec"]
    pod = deployment["template"]["spec"]
    (container,) = pod["containers"]
    program, *options = container["command"]
    assert program == "rucio-cs3-agent"
    # The command itself says whether it knows them; it does not run.
    context = agent.make_context(program, list(options), resilient_parsing=False)
    grace_s = context.params["grace"]
    assert pod["terminationGracePeriodSeconds"] >= grace_s + 60
    assert container["image"] == f"rucio-cs3/rucio:{__version__}"
    selector = deployment["selector"]["matchLabels"].items()
    assert selector <= deployment["template"]["metadata"]["labels"].items()
    assert found["PodDisruptionBudget"]["spec"]["selector"] == deployment["selector"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    secrets = [source["secret"]["name"] for source in pod["volumes"][0]["projected"]["sources"]]
    assert secrets == ["rucio-cfg", "rucio-rse-accounts"]
    assert pod["volumes"][0]["projected"]["defaultMode"] & 0o007 == 0
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    for probe in ("startupProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["port"] in ports


def test_either_a_number_of_agents_or_a_range() -> None:
    fixed, scaled = rendered({"replicas": 3}), rendered({"autoscaling.enabled": True})
    assert fixed["Deployment"]["spec"]["replicas"] == 3
    assert "HorizontalPodAutoscaler" not in fixed
    assert "replicas" not in scaled["Deployment"]["spec"]
    scaler = scaled["HorizontalPodAutoscaler"]["spec"]
    assert scaler["scaleTargetRef"]["name"] == scaled["Deployment"]["metadata"]["name"]
    (metric,) = scaler["metrics"]
    # A metric that nobody has would never scale anything.
    assert f"| `{metric['pods']['metric']['name']}` |" in (ROOT / "docs" / "monitoring.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("name", "value"),
    [("agent.graceSeconds", "long"), ("replicas", -1), ("rucio.configSecret", ""), ("metrics.port", 0), ("repicas", 3)],
)
def test_wrong_values_are_refused(name: str, value: object) -> None:
    done = helm("template", "site", CHART, f"--set-json={name}={json.dumps(value)}")
    assert done.returncode != 0
    assert name.rpartition(".")[2] in done.stderr


def test_the_version_is_that_of_the_package() -> None:
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == __version__


def test_the_notes_have_commands_that_exist() -> None:
    notes = (CHART / "templates" / "NOTES.txt").read_text()
    from rucio_cs3.cli.main import cli

    named = re.findall(r"rucio-cs3 ([a-z-]+)", notes)
    assert named
    assert set(named) <= set(cli.commands) | set(cli.list_commands(None))  # type: ignore[arg-type]
