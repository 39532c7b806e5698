"""examples/ ask for what is there: their files can be read, their routes and fields are our own."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import jinja2
import pytest
import yaml

from app import create_app
from config import Settings
from tests import callers, proxies
from tests.followed import serving
from tests.test_compose import COMPOSE

EXAMPLES = Path(__file__).parents[1] / "examples"
ADDRESS = "http://127.0.0.1:8000"
EXPRESSION = re.compile(r"\{\{.*?\}\}")


@dataclass(frozen=True)
class Asked:
    """A request that an example makes: `{}` stands for what is filled in."""

    method: str
    path: str
    fields: frozenset[str] = frozenset()


@cache
def read(name: str) -> str:
    return (EXAMPLES / name).read_text()


class Secrets(yaml.SafeLoader):
    """Home Assistant's own tag is a text like any other."""


Secrets.add_constructor("!secret", lambda _, node: f"the secret {node.value}")


def of_n8n() -> Iterator[Asked]:
    for node in json.loads(read("n8n/workflow.json"))["nodes"]:
        if node["type"] == "n8n-nodes-base.httpRequest":
            told = node["parameters"]
            fields = told.get("bodyParameters", {"parameters": []})["parameters"]
            yield Asked(told["method"], _path(told["url"]), frozenset(one["name"] for one in fields))


def of_home_assistant() -> Iterator[Asked]:
    for told in home_assistant()["rest_command"].values():
        body = jinja2.Template(told.get("payload", "{}")).render(recording="http://192.168.1.20/a.mp3")
        yield Asked(told["method"].upper(), _path(told["url"]), frozenset(json.loads(body)))


def home_assistant() -> dict[str, Any]:
    found: dict[str, Any] = yaml.load(read("home-assistant/whisper_queue.yaml"), Secrets)  # noqa: S506 (safe: SafeLoader's)
    return found


def of_open_webui() -> Iterator[Asked]:
    told = yaml.safe_load(read("open-webui/compose.yml"))["services"]["open-webui"]["environment"]
    base = told["AUDIO_STT_OPENAI_API_BASE_URL"].replace("http://web:8000", ADDRESS)
    yield Asked("POST", f"{_path(base)}/audio/transcriptions", frozenset({"file", "model"}))


def of_bazarr() -> Iterator[Asked]:
    for path in ("/asr", "/detect-language"):
        yield Asked("POST", path)


def _path(url: str) -> str:
    address, _, path = EXPRESSION.sub("{}", url.removeprefix("=")).partition("8000")
    assert f"{address}8000" == ADDRESS
    return path


@pytest.fixture
def described(settings: Settings) -> dict[str, Any]:
    return create_app(settings).openapi()


@pytest.mark.parametrize("example", [of_n8n, of_home_assistant, of_open_webui, of_bazarr], ids=lambda one: one.__name__)
def test_what_an_example_asks_for_is_there(described: dict[str, Any], example: Any) -> None:
    asked = list(example())
    assert asked
    for one in asked:
        path, _, query = one.path.partition("?")
        found = {re.sub(r"\{\w+\}", "{}", known): known for known in described["paths"]}
        operation = described["paths"][found[path]][one.method.lower()]
        parameters = {parameter["name"] for parameter in operation.get("parameters", [])}
        assert {pair.partition("=")[0] for pair in query.split("&") if query} <= parameters
        assert one.fields <= fields_of(operation), one


def fields_of(operation: dict[str, Any]) -> set[str]:
    content = operation.get("requestBody", {"content": {}})["content"].values()
    return {name for form in content for name in form["schema"].get("properties", {})}


def test_the_nodes_of_n8n_are_joined_from_the_first_to_the_last() -> None:
    flow = json.loads(read("n8n/workflow.json"))
    names = [node["name"] for node in flow["nodes"]]
    joined = {source: [to["node"] for to in out["main"][0]] for source, out in flow["connections"].items()}
    assert joined == {name: [following] for name, following in pairwise(names)}


def test_home_assistant_listens_where_the_service_is_told_to_call() -> None:
    told = home_assistant()
    (trigger,) = told["automation"][0]["triggers"]
    assert f"/api/webhook/{trigger['webhook_id']}" in told["rest_command"]["transcribe"]["payload"]
    first, _ = told["automation"][0]["actions"]
    assert first["action"].removeprefix("rest_command.") in told["rest_command"]


def test_open_webui_joins_the_network_of_our_compose_file_and_calls_its_service() -> None:
    told = yaml.safe_load(read("open-webui/compose.yml"))
    assert told["networks"]["transcription"]["name"] == f"{COMPOSE['name']}_default"
    address = told["services"]["open-webui"]["environment"]["AUDIO_STT_OPENAI_API_BASE_URL"]
    assert re.findall(r"//(\w+):", address)[0] in COMPOSE["services"]


def test_nginx_adds_the_key_that_bazarr_cannot_send(settings: Settings, tmp_path: Path) -> None:
    endpoint = yaml.safe_load(read("bazarr/config.yaml"))["whisperai"]["endpoint"]
    assert f"listen {endpoint.removeprefix('http://')};" in read("bazarr/nginx-with-key.conf")
    with serving(settings) as service:
        key = callers.make_key(settings)[1]
        with proxies.nginx_for_bazarr(service.url, tmp_path, key) as url:
            asked = {"task": "transcribe", "language": "en", "output": "srt", "encode": "false"}
            answer = httpx.post(f"{url}/asr", params=asked, files={"other": b""}, timeout=20)
            assert answer.status_code in {400, 404, 422}, "let in, and told that there is no recording"
            assert httpx.get(f"{url}/jobs/").status_code == 404


@pytest.mark.parametrize("path", sorted(EXAMPLES.rglob("*.*")), ids=lambda path: path.name)
def test_every_example_begins_with_a_key_and_holds_none(path: Path) -> None:
    if path.suffix == ".json":
        return  # README.md says it
    text = path.read_text()
    assert "admin keys create" in text or "nginx-with-key.conf" in text
    assert not re.search(r"tk_(?!YOUR_KEY)\w{8,}", text)
