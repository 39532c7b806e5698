"""Flower is a window, never a control path: it asks who you are, and refuses to do anything to the workers."""

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import psutil
import pytest

from config import Settings
from stack.home import Home
from stack.plan import Plan, choose_addresses, flower_login
from stack.process import Process
from stack.redis import Redis
from tests.processes import until

pytestmark = pytest.mark.xdist_group("flower")  # so that it is started once
ORDERS = (
    "/api/worker/shutdown/celery@here",
    "/api/worker/pool/grow/celery@here",
    "/api/worker/queue/cancel-consumer/celery@here?queue=transcription.high",
    "/api/task/revoke/00000000-0000-0000-0000-000000000000?terminate=true",
    "/api/task/apply/transcribe",
    "/api/task/async-apply/transcribe",
    "/api/task/send-task/transcribe",
)


@dataclass(frozen=True)
class Flower:
    url: str
    login: str
    pid: int

    def status(self, path: str, *, login: str = "", method: str = "GET") -> int:
        request = Request(self.url + path, method=method, data=b"{}" if method == "POST" else None)
        if login:
            request.add_header("Authorization", "Basic " + base64.b64encode(login.encode()).decode())
        try:
            with urlopen(request, timeout=10) as answer:
                return int(answer.status)
        except HTTPError as error:
            error.close()
            return error.code


@pytest.fixture(scope="module")
def flower(tmp_path_factory: pytest.TempPathFactory, redis_server: Redis) -> Iterator[Flower]:
    home = Home(tmp_path_factory.mktemp("flower"))
    settings = Settings(port=home.port("api"), data_dir=home.root)
    addresses = choose_addresses(settings, home)
    process = Process(Plan(settings, home, addresses, redis_url=redis_server.url).flower(), home.logs / "flower.log")
    process.start()
    running = Flower(addresses.flower, ":".join(flower_login(settings, home)), process.pid)
    try:
        until(lambda: _answers(running), 60)
        yield running
    finally:
        process.stop()


def _answers(flower: Flower) -> bool:
    try:
        return flower.status("/healthcheck") > 0
    except OSError:
        return False


@pytest.mark.parametrize("path", ["/", "/workers", "/tasks", "/api/tasks", "/api/workers"])
def test_without_a_password_there_is_nothing_to_see(flower: Flower, path: str) -> None:
    assert flower.status(path) == 401
    assert flower.status(path, login="admin:guess") == 401


@pytest.mark.parametrize("path", ["/", "/tasks", "/api/tasks"])
def test_with_the_password_it_shows_the_tasks(flower: Flower, path: str) -> None:
    assert flower.status(path, login=flower.login) == 200


@pytest.mark.parametrize("path", ORDERS)
def test_it_refuses_every_order_even_with_the_password(flower: Flower, path: str) -> None:
    assert flower.status(path, method="POST", login=flower.login) == 403
    assert flower.status(path, method="POST") == 401


def test_its_password_is_not_in_the_process_list(flower: Flower) -> None:
    assert flower.login.partition(":")[2] not in " ".join(psutil.Process(flower.pid).cmdline())
