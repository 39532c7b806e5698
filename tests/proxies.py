"""Proxies before a service: one of our own, and nginx and Caddy with the examples, where they are installed."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import create_connection
from threading import Thread

import httpx
import pytest

from stack.home import free_port
from tests.processes import until

EXAMPLES = Path(__file__).parents[1] / "examples"
SERVICE = "127.0.0.1:8000"  # as the examples have it
MAIN = """
daemon off; worker_processes 1; pid {home}/nginx.pid; error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {home}/body; proxy_temp_path {home}/proxy; fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi; scgi_temp_path {home}/scgi;
    include {home}/site.conf;
}}
"""


@contextmanager
def tiny(url: str, _home: Path) -> Iterator[str]:
    """Calls the service by its loopback address, as any proxy, and says for whom."""

    class Passing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            passed_on = {name: value for name, value in self.headers.items() if name.lower() != "host"}
            length = int(self.headers.get("Content-Length", 0))
            answer = httpx.request(
                self.command,
                url + self.path,
                headers=passed_on | {"X-Forwarded-For": "203.0.113.9"},
                content=self.rfile.read(length),
            )
            self.send_response(answer.status_code)
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_POST = do_GET  # noqa: N815 (http.server looks for it by this name)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Passing) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@contextmanager
def nginx(url: str, home: Path) -> Iterator[str]:
    """With the example, but for its name and certificate."""
    port = free_port()
    example = (EXAMPLES / "nginx" / "whisper-queue.conf").read_text()
    site = re.sub(r"ssl_certificate.*;|server_name.*;", "", example)
    assert "listen 443 ssl;" in site
    site = site.replace("listen 443 ssl;", f"listen 127.0.0.1:{port};")
    with _nginx(home, site.replace(f"http://{SERVICE}", url), port) as address:
        yield address


@contextmanager
def bare_nginx(url: str, home: Path) -> Iterator[str]:
    """`proxy_pass` and nothing else: it calls the service by its loopback address and says nothing of anybody."""
    port = free_port()
    site = f"server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass {url}; }} }}"
    with _nginx(home, site, port) as address:
        yield address


@contextmanager
def nginx_for_bazarr(url: str, home: Path, key: str) -> Iterator[str]:
    """With the example that adds a key."""
    port = free_port()
    site = (EXAMPLES / "bazarr" / "nginx-with-key.conf").read_text()
    site = site.replace("tk_YOUR_KEY", key).replace("127.0.0.1:9000", f"127.0.0.1:{port}")
    with _nginx(home, site.replace(f"http://{SERVICE}", url), port) as address:
        yield address


@contextmanager
def _nginx(home: Path, site: str, port: int) -> Iterator[str]:
    program = _installed("nginx")
    home.chmod(0o755)
    (home / "site.conf").write_text(site)
    (home / "nginx.conf").write_text(MAIN.format(home=home))
    command = (program, "-p", str(home), "-e", "stderr", "-c", str(home / "nginx.conf"))
    tried = subprocess.run((*command, "-t"), capture_output=True, text=True, timeout=30, check=False)
    assert tried.returncode == 0, tried.stderr
    with _running(command, home, port) as address:
        yield address


@contextmanager
def caddy(url: str, home: Path) -> Iterator[str]:
    """With the example, but for its name."""
    program = _installed("caddy")
    port = free_port()
    example = (EXAMPLES / "caddy" / "Caddyfile").read_text()
    site = re.sub(r"^transcribe\.example\.com \{", f"http://127.0.0.1:{port} {{", example, flags=re.MULTILINE)
    assert site != example
    (home / "Caddyfile").write_text("{\n\tadmin off\n}\n" + site.replace(SERVICE, url.removeprefix("http://")))
    command = (program, "run", "--adapter", "caddyfile", "--config", str(home / "Caddyfile"))
    with _running(command, home, port) as address:
        yield address


def _installed(name: str) -> str:
    if (program := shutil.which(name)) is None:
        pytest.skip(f"{name} is not installed")
    return program


@contextmanager
def _running(command: tuple[str, ...], home: Path, port: int) -> Iterator[str]:
    address = f"http://127.0.0.1:{port}"
    environment = {"HOME": str(home), "PATH": "/usr/bin:/bin"}
    log = home / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
    try:
        until(lambda: _listens(port) or _ended(process, log))
        yield address
    finally:
        process.terminate()
        process.wait(30)


def _listens(port: int) -> bool:
    with suppress(OSError), create_connection(("127.0.0.1", port), timeout=2):
        return True
    return False


def _ended(process: subprocess.Popen[bytes], log: Path) -> bool:
    assert process.poll() is None, log.read_text()
    return False
