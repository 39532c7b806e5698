"""deploy/ agrees with the schemas of Kubernetes and Compose and with the code, although no cluster is here to say."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml
from alembic.config import CommandLine
from pydantic import SecretStr

from app import create_app
from config import Settings
from jobs.routing import QUEUES
from stack.plan import MAIN_QUEUES, RETRY_QUEUES, WEBHOOK_QUEUES
from tests.test_compose import COMPOSE, SCHEMA, SETTINGS, parse_flower, stages, variables

ROOT = Path(__file__).parents[1]
KUBERNETES = ROOT / "deploy" / "kubernetes"
VERSIONS = ("1.29", kubernetes_validate.latest_version())
CUSTOM = json.loads(Path(__file__).with_name("custom_resources.json").read_text())
KUSTOMIZATIONS = sorted(path.parent for path in KUBERNETES.rglob("kustomization.yaml"))
FILES = sorted(path for path in KUBERNETES.rglob("*.yaml") if path.name != "kustomization.yaml")
RESOURCES: list[dict[str, Any]] = [one for path in FILES for one in yaml.safe_load_all(path.read_text())]
FOREIGN = {
    "AWS_ACCESS_KEY_ID": "boto3",
    "AWS_SECRET_ACCESS_KEY": "boto3",
    "CUDA_CACHE_PATH": "the CUDA driver",
    "HF_HOME": "the client of the model hub",
    "PIP_INDEX_URL": "pip",
    "TMPDIR": "Python's tempfile",
    "FLOWER_BASIC_AUTH": "Flower",
    "FLOWER_UNAUTHENTICATED_API": "Flower",
}
WORKERS: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "two-hosts" / "compose.worker.yml").read_text())
GIVEN = {  # as an operator would fill in the secrets
    "DATABASE_URL": "postgresql://transcription@db.example.com/transcription",
    "REDIS_URL": "rediss://cache.example.com/0",
    **dict.fromkeys(("API_KEY", "SECRET_KEY", "METRICS_TOKEN"), "5f3a9c0e7b2d4816"),
}
Resource = dict[str, Any]


def of_kind(*kinds: str) -> list[Resource]:
    return [one for one in RESOURCES if one["kind"] in kinds]


def name_of(one: Resource) -> str:
    return str(one["metadata"]["name"])


PODS = {name_of(one): one["spec"]["template"] for one in of_kind("Deployment", "Job")}
CONFIG: dict[str, str] = of_kind("ConfigMap")[0]["data"]
SECRETS: dict[str, dict[str, str]] = {name_of(one): one["stringData"] for one in of_kind("Secret")}


def container(name: str) -> Resource:
    (only,) = PODS[name]["spec"]["containers"]
    return dict(only)


def environment(name: str) -> dict[str, str]:
    """What the processes of a pod are told, with the secrets as an operator would fill them in."""
    told: dict[str, str] = {}
    for source in container(name).get("envFrom", []):
        told |= CONFIG if "configMapRef" in source else SECRETS[source["secretRef"]["name"]]
    for one in container(name).get("env", []):
        told[one["name"]] = one["value"] if "value" in one else _secret(one["valueFrom"]["secretKeyRef"])
    return {key: GIVEN.get(key, value) for key, value in told.items()}


def _secret(reference: dict[str, str]) -> str:
    return SECRETS[reference["name"]][reference["key"]]


def is_selected(selector: Resource, labels: dict[str, str]) -> bool:
    """As Kubernetes does it, for what we use of it."""
    for wanted in selector.get("matchExpressions", []):
        assert wanted["operator"] == "NotIn"
        if labels.get(wanted["key"]) in wanted["values"]:
            return False
    wanted_labels: dict[str, str] = selector.get("matchLabels", {})
    return wanted_labels.items() <= labels.items()


def selected(selector: Resource) -> set[str]:
    return {name for name, pod in PODS.items() if is_selected(selector, pod["metadata"]["labels"])}


def ports(name: str) -> dict[str, int]:
    return {port["name"]: port["containerPort"] for port in container(name).get("ports", [])}


# Schemas


@pytest.mark.parametrize("version", VERSIONS)
def test_every_manifest_has_the_form_that_kubernetes_expects(version: str) -> None:
    for one in RESOURCES:
        if one["kind"] not in CUSTOM:
            kubernetes_validate.validate(one, version, strict=True)


def test_every_custom_resource_has_the_fields_that_its_operator_documents() -> None:
    custom = of_kind(*CUSTOM)
    assert {one["kind"] for one in custom} == set(CUSTOM)
    for one in custom:
        jsonschema.Draft202012Validator(CUSTOM[one["kind"]]).validate(one)


def test_every_file_is_part_of_a_kustomization_but_for_the_secrets() -> None:
    named = {folder / name for folder in KUSTOMIZATIONS for name in _kustomization(folder)["resources"]}
    assert named == set(FILES) - {KUBERNETES / "secrets.template.yaml"}


def _kustomization(folder: Path) -> Resource:
    return dict(yaml.safe_load((folder / "kustomization.yaml").read_text()))


@pytest.mark.parametrize("folder", KUSTOMIZATIONS, ids=lambda folder: folder.name)
def test_kustomize_renders_it(folder: Path) -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not at hand")
    rendered = subprocess.check_output((kubectl, "kustomize", folder), text=True, timeout=60)
    found = list(yaml.safe_load_all(rendered))
    expected = [one for name in _kustomization(folder)["resources"] for one in _documents(folder / name)]
    assert sorted((one["kind"], name_of(one)) for one in found) == sorted((o["kind"], name_of(o)) for o in expected)
    assert "image: transcription:" not in rendered, "the registry was not put before the image"


def _documents(path: Path) -> Iterator[Resource]:
    return yaml.safe_load_all(path.read_text())


# Pods and the code


def test_every_process_of_the_service_is_there() -> None:
    ours = {name for name, service in COMPOSE["services"].items() if "build" in service}
    assert set(PODS) == (ours - {"worker-gpu"})


@pytest.mark.parametrize("name", PODS)
def test_every_command_names_a_program_of_ours(name: str) -> None:
    python, *rest = container(name)["command"]
    assert python == "python"
    match rest:
        case [script]:
            assert 'if __name__ == "__main__":' in (ROOT / script).read_text()
        case ["-m", "alembic", *arguments]:
            assert CommandLine().parser.parse_args(arguments).cmd
        case ["-m", "celery", "-A", app, "flower"]:
            assert (ROOT / f"{app}.py").exists()
            parse_flower(container(name)["args"])
        case _:
            pytest.fail(f"cannot tell whether this works: {rest}")


def test_flower_runs_as_in_compose() -> None:
    flower = container("flower")
    assert [*flower["command"], *flower["args"]] == COMPOSE["services"]["flower"]["command"]


@pytest.mark.parametrize("name", PODS)
def test_every_variable_is_a_setting_or_somebody_elses(name: str) -> None:
    assert set(environment(name)) <= SETTINGS | set(FOREIGN)


@pytest.mark.parametrize("name", PODS)
def test_the_settings_of_every_pod_are_valid_together(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in environment(name).items():
        monkeypatch.setenv(variable, value)
    settings = Settings()
    if name == "web":
        assert not settings.is_open_without_key
    if name not in ("migrate", "flower"):
        settings.require_servers()
        assert settings.storage_url.startswith("s3://")


def test_the_workers_share_the_queues_as_in_the_stack() -> None:
    queues = {name: environment(name).get("WORKER_QUEUES") for name in PODS}
    assert queues["worker"] == MAIN_QUEUES
    assert queues["worker-retry"] == RETRY_QUEUES
    assert queues["worker-webhooks"] == WEBHOOK_QUEUES
    assert set(f"{MAIN_QUEUES},{RETRY_QUEUES},{WEBHOOK_QUEUES}".split(",")) == set(QUEUES)


@pytest.mark.parametrize("name", PODS)
def test_every_image_is_a_target_of_the_dockerfile(name: str) -> None:
    image, _, target = container(name)["image"].partition(":")
    assert target in stages()
    assert {f"{image}:{target}"} <= {service.get("image") for service in COMPOSE["services"].values()}
    assert (target == "gpu") == ("nvidia.com/gpu" in container(name)["resources"]["limits"])


def test_every_probe_asks_what_the_code_answers() -> None:
    api = create_app(Settings(redis_url=SecretStr(GIVEN["REDIS_URL"])))
    routes = set(api.openapi()["paths"])
    for name in PODS:
        probes = [probe for key, probe in container(name).items() if key.endswith("Probe")]
        assert probes or name == "migrate"
        for probe in probes:
            match probe:
                case {"httpGet": {"path": path, "port": port}}:
                    assert port in ports(name)
                    assert path in (routes if name == "web" else {"/healthcheck"})
                case {"exec": {"command": [_, "-m", module]}}:
                    assert 'if __name__ == "__main__":' in (ROOT / f"{module.replace('.', '/')}.py").read_text()
                case _:
                    pytest.fail(f"cannot tell whether this works: {probe}")


@pytest.mark.parametrize("name", PODS)
def test_the_ports_are_those_that_the_settings_name(name: str) -> None:
    told = environment(name)
    expected = {"web": {"http": told.get("PORT")}, "flower": {"http": "8001"}, "migrate": {}}
    assert {port: str(number) for port, number in ports(name).items()} == expected.get(
        name, {"metrics": told.get("METRICS_PORT")}
    )


@pytest.mark.parametrize("name", PODS)
def test_every_pod_has_no_privileges_and_writes_only_where_a_volume_is(name: str) -> None:
    pod, one = PODS[name]["spec"], container(name)
    user = int(re.findall(r"--uid (\d+)", (ROOT / "Dockerfile").read_text())[0])
    assert (pod["securityContext"]["runAsNonRoot"], pod["securityContext"]["runAsUser"]) == (True, user)
    assert one["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False, "variables like FLOWER_PORT=tcp://… would be taken for settings"
    mounted = {mount["mountPath"]: mount["name"] for mount in one.get("volumeMounts", [])}
    assert set(mounted.values()) == {volume["name"] for volume in pod.get("volumes", [])}
    written = {"DATA_DIR", "MODEL_CACHE_DIR"} if name.startswith("worker") and name != "worker-webhooks" else set()
    assert {environment(name)[variable] for variable in written} <= set(mounted)


def test_a_worker_has_the_time_to_hand_its_jobs_back() -> None:
    for name in ("worker", "worker-retry", "worker-webhooks"):
        compose_s = int(COMPOSE["services"][name]["stop_grace_period"].removesuffix("s"))
        assert PODS[name]["spec"]["terminationGracePeriodSeconds"] >= compose_s


# What points at what


def test_services_budgets_policies_and_monitors_find_their_pods() -> None:
    for one in of_kind("Service"):
        (name,) = selected({"matchLabels": one["spec"]["selector"]})
        assert {port["targetPort"] for port in one["spec"]["ports"]} <= set(ports(name))
    for one in of_kind("PodDisruptionBudget"):
        assert selected(one["spec"]["selector"]) == {name_of(one)}
    for one in of_kind("NetworkPolicy"):
        asked = {port["port"] for rule in one["spec"].get("ingress", []) for port in rule["ports"]}
        assert asked <= {port for name in selected(one["spec"]["podSelector"]) for port in ports(name)}
    for one in of_kind("PodMonitor"):
        names = selected(one["spec"]["selector"])
        assert names
        for endpoint in one["spec"]["podMetricsEndpoints"]:
            assert all(endpoint["port"] in ports(name) for name in names)
            assert _secret(endpoint["authorization"]["credentials"]) == ""


def test_every_pod_that_serves_metrics_is_scraped() -> None:
    scraped = {name for one in of_kind("PodMonitor") for name in selected(one["spec"]["selector"])}
    assert scraped == set(PODS) - {"flower", "migrate"}


def test_what_is_scaled_is_a_deployment_that_does_not_fix_its_number() -> None:
    for one in of_kind("HorizontalPodAutoscaler", "ScaledObject"):
        (target,) = (d for d in of_kind("Deployment") if name_of(d) == one["spec"]["scaleTargetRef"]["name"])
        assert "replicas" not in target["spec"]


def test_the_autoscaler_asks_for_a_metric_that_is_served() -> None:
    (scaled,) = of_kind("ScaledObject")
    (trigger,) = scaled["spec"]["triggers"]
    (metric,) = re.findall(r"whisper_queue_\w+", trigger["metadata"]["query"])
    served = "".join(path.read_text() for folder in ("api", "telemetry") for path in (ROOT / folder).glob("*.py"))
    assert metric.removeprefix("whisper_queue_") in served


def test_no_file_holds_a_secret() -> None:
    assert {value for secret in SECRETS.values() for value in secret.values()} == {""}
    kept = {key for secret in SECRETS.values() for key in secret}
    for path in (ROOT / "deploy").rglob("*.y*ml"):
        text = path.read_text()
        assert not re.search(r"://[^$\s/:]*:[^$\s@]+@", text), f"a password in {path}"
        assert not re.search(rf"({'|'.join(kept)}): [^\"$\s]", text), f"a secret in {path}"


def test_the_readme_makes_every_secret_that_the_pods_read() -> None:
    told = (ROOT / "deploy" / "README.md").read_text()
    for name, values in SECRETS.items():
        (command,) = re.findall(rf"create secret generic {name} (.*?)\n(?!  )", told, re.DOTALL)
        assert set(re.findall(r"--from-literal=(\w+)=", command)) == set(values)


# Hosts of workers, with Compose


def test_the_compose_file_of_worker_hosts_has_the_form_that_compose_expects() -> None:
    jsonschema.Draft202012Validator(SCHEMA).validate(WORKERS)
    for service in WORKERS["services"].values():
        assert (ROOT / "deploy" / "two-hosts" / service["build"]["context"] / "Dockerfile").exists()
        assert service["build"]["target"] in stages()
        assert service["image"] == f"transcription:{service['build']['target']}"


@pytest.mark.parametrize("name", WORKERS["services"])
def test_a_worker_host_is_told_what_it_must_share_and_shares_no_disk(name: str) -> None:
    service = WORKERS["services"][name]
    told = service["environment"]
    assert set(told) | variables(service) <= SETTINGS | set(FOREIGN)
    for variable in ("DATABASE_URL", "REDIS_URL", "STORAGE_URL"):
        assert told[variable].startswith(f"${{{variable}:?")
    ours = COMPOSE["services"][name]
    assert service["command"] == ours["command"]
    assert service["healthcheck"] == ours["healthcheck"]
    assert told["WORKER_QUEUES"] == ours["environment"]["WORKER_QUEUES"]
    assert {volume.partition(":")[0] for volume in service["volumes"]} <= set(WORKERS["volumes"])


def test_the_first_host_opens_its_servers_on_one_private_address_only() -> None:
    first = yaml.safe_load((ROOT / "deploy" / "two-hosts" / "compose.first.yml").read_text())
    assert set(first["services"]) == {"postgres", "redis"} <= set(COMPOSE["services"])
    for service in first["services"].values():
        assert set(service) == {"ports"}
        (port,) = service["ports"]
        assert re.fullmatch(r"\$\{PRIVATE_ADDRESS:\?[^}]+\}:(\d+):\1", port)


def test_only_workers_run_on_a_worker_host_and_one_behind_a_profile_takes_the_gpu() -> None:
    assert set(WORKERS["services"]) == {"worker", "worker-retry", "worker-gpu"}
    assert {name for name, service in WORKERS["services"].items() if "deploy" in service} == {"worker-gpu"}
    assert WORKERS["services"]["worker-gpu"]["profiles"] == ["gpu"]
