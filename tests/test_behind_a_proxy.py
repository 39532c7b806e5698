"""Behind a proxy nothing is open before there is a key: to the service every caller seems to be on its own machine."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from fastapi.testclient import TestClient
from websockets.sync.client import connect

from app import create_app
from config import Settings
from tests import callers
from tests.api_client import WAV
from tests.followed import Running, code_of, serving
from tests.proxies import bare_nginx, caddy, nginx, tiny

TELLING = (  # what some proxy or tunnel adds
    "Forwarded X-Forwarded-For X-Forwarded-Proto X-Forwarded-Host X-Forwarded-Anything X-Real-IP Via CF-Connecting-IP "
    "CF-Ray CDN-Loop True-Client-IP X-Client-IP X-Original-URL X-Envoy-External-Address Fly-Client-IP "
    "Fastly-Client-IP X-Amzn-Trace-Id Tailscale-User-Login Proxy-Connection"
).split()
PUBLIC = {"/health", "/health/live", "/health/ready"}
COMMAND = "python -m admin keys create"
Proxy = Callable[[str, Path], AbstractContextManager[str]]


@pytest.fixture
def service(settings: Settings) -> Iterator[Running]:
    with serving(settings) as running:
        yield running


@pytest.fixture
def proxied(client: TestClient) -> TestClient:
    client.headers["X-Forwarded-For"] = "203.0.113.9"
    return client


def test_a_real_service_hears_of_the_proxy_and_answers_nobody_until_there_is_a_key(
    settings: Settings, data_dir: Path
) -> None:
    """uvicorn looks at some of these headers too, and must not take them away."""
    with callers.serving(data_dir / "api.log") as url, httpx.Client(base_url=url) as here:
        assert here.get("/jobs/").status_code == 200
        for name in TELLING:
            refused = here.get("/jobs/", headers={name: "203.0.113.9"})
            assert (refused.status_code, refused.headers["content-type"]) == (403, "application/problem+json"), name
            assert refused.json()["code"] == "forbidden"
            assert COMMAND in refused.json()["detail"]
            assert here.get("/health", headers={name: "203.0.113.9"}).status_code == 200
        key = callers.key_of(settings)
        for name in TELLING:
            assert here.get("/jobs/", headers=key | {name: "203.0.113.9"}).status_code == 200


def test_no_door_is_open(proxied: TestClient, settings: Settings) -> None:
    """Also the ones that are still to come."""
    paths = create_app(settings).openapi()["paths"]
    assert {"/transcribe/", "/v1/models", "/metrics", "/admin/keys", "/jobs/"} <= set(paths)
    for path, operations in paths.items():
        for method in operations:
            concrete = path
            for name in ("job_id", "batch_id", "error_id", "key_id", "delivery_id"):
                concrete = concrete.replace(f"{{{name}}}", str(uuid4()))
            expected = 200 if path in PUBLIC else 403
            assert proxied.request(method, concrete).status_code == expected, (method, path)


def test_nobody_makes_the_first_key_through_a_proxy(proxied: TestClient) -> None:
    assert proxied.post("/admin/keys", json={"name": "mine", "role": "admin"}).status_code == 403
    del proxied.headers["X-Forwarded-For"]
    assert proxied.get("/admin/keys").json()["data"] == []


def test_openais_clients_are_told_in_their_own_shape(proxied: TestClient) -> None:
    refused = proxied.get("/v1/models", headers={"Authorization": "Bearer any"})
    assert refused.status_code == 403
    assert refused.json()["error"]["code"] == "forbidden"
    assert COMMAND in refused.json()["error"]["message"]


def test_a_websocket_is_closed_and_says_what_to_do(service: Running) -> None:
    url = f"{service.url.replace('http', 'ws')}/ws/jobs/{uuid4()}"
    with connect(url, additional_headers={"Via": "1.1 proxy"}) as stream:
        assert code_of(stream) == 4403
        assert COMMAND in str(stream.close_reason)


def test_a_scraper_with_the_token_needs_no_key(settings: Settings) -> None:
    told = settings.model_copy(update={"metrics_token": type(settings.metrics_token)("5f3a9c0e7b2d4816")})
    with TestClient(create_app(told), base_url="http://127.0.0.1", headers={"Via": "1.1 proxy"}) as client:
        assert client.get("/metrics").status_code == 403
        assert client.get("/metrics", headers=callers.bearer("5f3a9c0e7b2d4816")).status_code == 200


@pytest.mark.parametrize("before", [tiny, nginx, bare_nginx, caddy])
def test_through_a_proxy_it_is_403_before_the_first_key_and_200_with_it(
    service: Running, tmp_path: Path, before: Proxy
) -> None:
    with before(service.url, tmp_path) as url, httpx.Client(base_url=url, timeout=20) as far:
        refused = far.get("/jobs/")
        assert refused.status_code == 403
        assert COMMAND in refused.json()["detail"]
        assert far.post("/transcribe/", files={"file": ("talk.wav", WAV)}).status_code == 403
        made = httpx.post(f"{service.url}/admin/keys", json={"name": "operator", "role": "admin"})
        far.headers["Authorization"] = f"Bearer {made.json()['key']}"
        assert far.get("/jobs/").status_code == 200
        assert far.post("/transcribe/", files={"file": ("talk.wav", WAV)}).status_code == 202
        del far.headers["Authorization"]
        assert far.get("/jobs/").status_code == 401


@pytest.mark.parametrize("before", [nginx, caddy])
def test_the_examples_let_websockets_and_large_recordings_through(
    service: Running, tmp_path: Path, before: Proxy
) -> None:
    made = httpx.post(f"{service.url}/admin/keys", json={"name": "operator", "role": "admin"})
    key = callers.bearer(made.json()["key"])
    with before(service.url, tmp_path) as url:
        large = WAV + bytes(8 * 1024**2)  # eight times what nginx takes by itself
        answer = httpx.post(f"{url}/transcribe/", files={"file": ("talk.wav", large)}, headers=key, timeout=20)
        assert answer.status_code == 202
        with connect(
            f"{url.replace('http', 'ws')}/ws/jobs/{answer.json()['job_id']}", additional_headers=key
        ) as stream:
            assert '"pending"' in stream.recv(timeout=10)


@pytest.mark.parametrize("example", ["nginx/whisper-queue.conf", "caddy/Caddyfile"])
def test_the_examples_begin_with_a_key(example: str) -> None:
    text = (Path(__file__).parents[1] / "examples" / example).read_text()
    assert text.index(f"{COMMAND} operator --role admin") < text.index("proxy_pass" if "nginx" in example else "{")


@pytest.mark.parametrize("origin", ["https://transcribe.example.com", "http://192.0.2.7:8000"])
def test_a_page_that_a_proxy_has_brought_is_refused_even_where_the_proxy_is_silent(
    client: TestClient, origin: str
) -> None:
    """To the browser it is the page's own site; to us it comes from 127.0.0.1."""
    asked = {"Origin": origin, "Sec-Fetch-Site": "same-origin"}
    assert client.post("/admin/keys", json={"name": "x"}, headers=asked).status_code == 403
    assert client.get("/jobs/", headers={"Origin": "http://localhost:5173"}).status_code == 200


def test_half_an_address_as_a_host_is_refused_not_an_error(client: TestClient) -> None:
    assert client.get("/jobs/", headers={"Host": "[::1"}).status_code == 403
