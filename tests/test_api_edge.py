"""Around every request: its id, the headers that protect browsers, other origins, and how much is read at most."""

import logging
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient

from api.edge import POLICY, SECURITY_HEADERS
from app import create_app
from config import Settings
from tests.callers import key_of, serving

EXPECTED = SECURITY_HEADERS | {"Content-Security-Policy": POLICY}


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    return create_app(settings)


@pytest.fixture
def outside(app: FastAPI) -> Iterator[TestClient]:
    """As a caller sees it: a crash is an answer, not an exception."""
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        yield client


def protected(answer: Any) -> bool:
    return EXPECTED.items() <= {name: answer.headers.get(name) for name in EXPECTED}.items()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/health", 200),
        ("GET", "/openapi.json", 200),
        ("GET", "/jobs/", 200),
        ("GET", "/nowhere", 404),
        ("GET", "/transcribe/not-an-id", 422),
        ("PUT", "/jobs/", 405),
        ("GET", "/jobs", 307),
    ],
)
def test_every_answer_bears_the_headers(outside: TestClient, method: str, path: str, status: int) -> None:
    answer = outside.request(method, path, follow_redirects=False)
    assert answer.status_code == status
    assert protected(answer), answer.headers
    assert len(answer.headers["x-request-id"]) == 32


def test_a_refusal_and_a_crash_bear_them_too(app: FastAPI, outside: TestClient, settings: Settings) -> None:
    @app.get("/crash")
    def crash() -> None:
        raise RuntimeError("secret of the inner room")

    key_of(settings)
    answers = {path: outside.get(path, headers={"X-Request-ID": "my-request-1"}) for path in ("/jobs/", "/crash")}
    assert [answer.status_code for answer in answers.values()] == [401, 500]
    for answer in answers.values():
        assert protected(answer), answer.headers
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["x-request-id"] == answer.json()["request_id"] == "my-request-1"
    assert "secret of the inner room" not in answers["/crash"].text


def test_a_crash_is_answered_once_and_still_reaches_the_server(app: FastAPI) -> None:
    @app.get("/crash")
    def crash() -> None:
        raise RuntimeError("seen by the server")

    with TestClient(app) as client, pytest.raises(RuntimeError, match="seen by the server"):
        client.get("/crash")


def test_a_crash_in_the_middle_of_an_answer_breaks_it_off(app: FastAPI, outside: TestClient) -> None:
    @app.get("/half")
    def half() -> StreamingResponse:
        def parts() -> Iterator[bytes]:
            yield b"begun"
            raise RuntimeError

        return StreamingResponse(parts())

    assert outside.get("/half").status_code == 200  # it had begun: there is no second answer


def test_what_a_route_says_itself_stands(app: FastAPI, outside: TestClient) -> None:
    @app.get("/events")
    def events() -> StreamingResponse:
        return StreamingResponse(
            [b"data: 1\n\n"], headers={"Cache-Control": "no-cache", "X-Frame-Options": "SAMEORIGIN"}
        )

    answer = outside.get("/events")
    assert (answer.headers["cache-control"], answer.headers["x-frame-options"]) == ("no-cache", "SAMEORIGIN")
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_the_description_may_load_its_scripts(outside: TestClient, path: str) -> None:
    answer = outside.get(path)
    assert answer.status_code == 200
    assert "content-security-policy" not in answer.headers
    assert answer.headers["x-frame-options"] == "DENY"
    assert "content-security-policy" in outside.get(f"{path}-of-somebody-else").headers


@pytest.mark.parametrize("given", ["my-request-1", "A.b_c-012345", "x" * 128])
def test_a_request_id_of_the_callers_comes_back(outside: TestClient, given: str) -> None:
    assert outside.get("/health", headers={"X-Request-ID": given}).headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["short", "x" * 129, "line\tbreak12", "words in between", "ümlaut-ümlaut", ""])
def test_a_request_id_that_would_spoil_a_log_line_is_replaced(outside: TestClient, given: str) -> None:
    answer = outside.get("/health", headers=[(b"X-Request-ID", given.encode("latin-1"))])
    assert answer.headers["x-request-id"] != given
    assert len(answer.headers["x-request-id"]) == 32


def preflight(client: TestClient, origin: str) -> Any:
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }
    return client.options("/transcribe/", headers=asked)


def test_pages_of_other_origins_may_not_call_unless_the_operator_says_so(outside: TestClient) -> None:
    assert "access-control-allow-origin" not in preflight(outside, "https://app.example").headers
    answer = outside.get("/health", headers={"Origin": "https://app.example"})
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_pages_of_the_origins_in_the_settings_may_call(settings: Settings) -> None:
    told = settings.model_copy(update={"cors_origins": "https://app.example, https://two.example"})
    with TestClient(create_app(told), base_url="http://127.0.0.1") as client:
        for origin in ("https://app.example", "https://two.example"):
            asked = preflight(client, origin)
            assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (200, origin)
            assert protected(asked)
            answer = client.get("/health", headers={"Origin": origin})
            assert answer.headers["access-control-allow-origin"] == origin
            assert "access-control-allow-credentials" not in answer.headers  # keys only, never a cookie
        for origin in ("https://evil.example", "https://app.example.evil.example", "http://app.example", "null"):
            assert "access-control-allow-origin" not in preflight(client, origin).headers
            assert "access-control-allow-origin" not in client.get("/health", headers={"Origin": origin}).headers


def test_a_log_line_of_a_crash_bears_the_request_id(
    app: FastAPI, outside: TestClient, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    @app.get("/crash")
    def crash() -> None:
        raise RuntimeError("boom")

    with caplog.at_level(logging.ERROR):
        outside.get("/crash", headers={"X-Request-ID": "find-me-in-the-log"})
    assert "find-me-in-the-log" in caplog.text + capsys.readouterr().out


@pytest.mark.parametrize(("size", "status"), [(15_000, 200), (16_500, 431)])
def test_headers_are_read_up_to_a_limit(outside: TestClient, size: int, status: int) -> None:
    answer = outside.get("/health", headers={"X-Big": "x" * size})
    assert answer.status_code == status
    assert protected(answer)
    if status == 431:
        assert "larger than 16384 bytes" in answer.json()["detail"]


def spoken(url: str, request: bytes) -> bytes:
    """What a real server answers to these bytes, until it hangs up."""
    address = urlsplit(url)
    assert address.hostname is not None
    with socket.create_connection((address.hostname, address.port or 80), timeout=10) as connection:
        received = b""
        try:
            connection.sendall(request)
            while chunk := connection.recv(65_536):
                received += chunk
        except ConnectionError:  # it has hung up on the rest
            pass
    return received


def test_a_real_server_refuses_endless_headers_and_goes_on(settings: Settings, data_dir: Path) -> None:
    line = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    with serving(data_dir / "api.log") as url:
        assert spoken(url, line + b"\r\n").startswith(b"HTTP/1.1 200")
        for headers in (
            b"X-Big: " + b"x" * 100_000,
            b"\r\n".join(b"X-%d: %s" % (number, b"x" * 90) for number in range(1000)),
        ):
            answer = spoken(url, line + headers + b"\r\n\r\n")
            assert answer[:12] in (b"", b"HTTP/1.1 400", b"HTTP/1.1 431")  # or it has hung up on the rest
        assert spoken(url, line + b"\r\n").startswith(b"HTTP/1.1 200")
        assert b"\r\nserver:" not in spoken(url, line + b"\r\n").lower()
