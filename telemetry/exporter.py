"""Serves the counters of a process that has no HTTP of its own: relay, workers. Nothing but GET /metrics.

`python -m telemetry.exporter FOLDER` for a worker, whose main process forks and must have no threads.
"""

import hmac
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from socketserver import ThreadingMixIn
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from config import Settings, get_settings, inherited_environment
from parent import die_with_parent
from telemetry.metrics import expose

ROOT = Path(__file__).parents[1]
Respond = Callable[[str, list[tuple[str, str]]], object]


class _Quiet(WSGIRequestHandler):
    timeout = 10  # seconds; whoever sends half a request is not waited for

    def log_message(self, *_: Any) -> None:
        return


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Server6(_Server):
    address_family = socket.AF_INET6


def is_scraper(token: str, authorization: str) -> bool:
    """Whether `authorization` is `Bearer METRICS_TOKEN`; compared in constant time."""
    given = authorization.partition(" ")[2].encode()
    return bool(token) and hmac.compare_digest(token.encode(), given)


def open_exporter(settings: Settings, folder: str = "") -> WSGIServer:
    """Listens on HOST and METRICS_PORT; the caller serves. Raises OSError where the port is taken."""
    token = settings.metrics_token.get_secret_value()

    def answer(environ: dict[str, Any], respond: Respond) -> Iterable[bytes]:
        if environ["PATH_INFO"] != "/metrics" or environ["REQUEST_METHOD"] != "GET":
            respond("404 Not Found", [("Content-Type", "text/plain")])
            return [b"There is only GET /metrics here.\n"]
        if token and not is_scraper(token, environ.get("HTTP_AUTHORIZATION", "")):
            respond("401 Unauthorized", [("Content-Type", "text/plain"), ("WWW-Authenticate", "Bearer")])
            return [b"Send Authorization: Bearer METRICS_TOKEN.\n"]
        body, media_type = expose(environ.get("HTTP_ACCEPT", ""), folder)
        respond("200 OK", [("Content-Type", media_type)])
        return [body]

    kind = _Server6 if ":" in settings.host else _Server
    return make_server(settings.host, settings.metrics_port, answer, kind, _Quiet)


def start_exporter(settings: Settings) -> None:
    """On a thread, for a process that may have some; does nothing without a METRICS_PORT."""
    if settings.metrics_port:
        server = open_exporter(settings, settings.prometheus_multiproc_dir)
        Thread(target=server.serve_forever, name="metrics", daemon=True).start()


@contextmanager
def exporter_process(settings: Settings) -> Iterator[None]:
    """Beside the caller, for as long as the block lasts; without a METRICS_PORT there is none."""
    if not settings.metrics_port:
        yield
        return
    command = (sys.executable, "-m", "telemetry.exporter", settings.prometheus_multiproc_dir)
    exporter = subprocess.Popen(command, cwd=ROOT, env=inherited_environment(), stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        exporter.terminate()
        exporter.wait()


def main() -> None:
    die_with_parent()
    open_exporter(get_settings(), sys.argv[1]).serve_forever()


if __name__ == "__main__":
    main()
