"""What is started, with which command and environment. Starts nothing itself."""

import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from config import Settings, inherited_environment, is_loopback
from stack.home import Home, is_free
from stack.process import ServiceSpec, StackError

RETRY_QUEUES = "transcription.retry,transcription.dlq"
MAIN_QUEUES = "transcription.high,transcription.normal"
WEBHOOK_QUEUES = "webhooks"
STAGE_API, STAGE_WORKERS = 2, 3  # the embedded servers come before, in stages 0 and 1
API_STOP_S = 12  # it gives open requests 10
WORKER_STOP_S = 30  # to finish a job, or to hand it back at the next segment
READY_WITHIN_S = 120
MIGRATE_WITHIN_S, MODEL_WITHIN_S = 1800, 7200  # a large table; a slow line


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the two web servers listen."""

    host: str
    port: int
    flower_port: int

    @property
    def api(self) -> str:
        return f"http://{reachable(self.host)}:{self.port}"

    @property
    def flower(self) -> str:
        return f"http://127.0.0.1:{self.flower_port}"


def choose_addresses(settings: Settings, home: Home) -> Addresses:
    """Raises StackError where somebody else has a port that was asked for, or strangers could call the API."""
    has_database = settings.database_url or (home.root / "postgres").exists()  # there may be keys in it
    if settings.is_open_without_key and not has_database:
        raise lets_strangers_in(settings)
    port = settings.port or home.port("api")
    if not is_free(port, settings.host):
        raise StackError(f"Port {port} is taken. Give another: make run PORT={_neighbour(port)}")
    flower = settings.flower_port or min(port + 1, 65535)
    if is_free(flower):
        return Addresses(settings.host, port, flower)
    if settings.flower_port:
        raise StackError(f"Port {flower} is taken. Give another: make run FLOWER_PORT={_neighbour(flower)}")
    return Addresses(settings.host, port, home.port("flower"))


def lets_strangers_in(settings: Settings) -> StackError:
    return StackError(
        f"HOST={settings.host} lets strangers in: set API_KEY too (openssl rand -hex 24), make a key first "
        "(python -m admin keys create NAME, beside `make run` on loopback), or keep HOST=127.0.0.1."
    )


def _neighbour(port: int) -> int:
    return next((other for other in range(port + 100, 65535, 100) if is_free(other)), 0)


def reachable(host: str) -> str:
    """How this machine calls itself when a server listens on `host`."""
    if is_loopback(host) and ":" not in host:
        return host
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104


@dataclass(frozen=True, slots=True)
class Plan:
    """The services of ours, and what they are told through the environment."""

    settings: Settings
    home: Home
    addresses: Addresses
    database_url: str = field(default="", repr=False)
    redis_url: str = field(default="", repr=False)
    model: str = ""  # empty: not chosen yet
    counters: str = ""  # folder that the services share, so that the API shows the counters of all

    @property
    def environment(self) -> dict[str, str]:
        told = {
            "DATABASE_URL": self.database_url,
            "REDIS_URL": self.redis_url,
            "DATA_DIR": str(self.home.root),
            "HOST": self.addresses.host,
            "PORT": str(self.addresses.port),
            "FLOWER_PORT": str(self.addresses.flower_port),
            "FLOWER_URL": self.settings.flower_url or self.addresses.flower,
            "METRICS_PORT": "0",  # the API shows the counters of all
            "PYTHONUNBUFFERED": "1",  # a log shows the last line before a crash
        }
        if self.counters:
            told["PROMETHEUS_MULTIPROC_DIR"] = self.counters
        if self.model:
            told["WHISPER_MODEL_SIZE"] = self.model
        inherited = inherited_environment()
        if libraries := cuda_libraries():  # the loader reads this at the start of a process only
            told["LD_LIBRARY_PATH"] = ":".join(filter(None, (libraries, inherited.get("LD_LIBRARY_PATH"))))
        return inherited | told

    def migrate(self) -> ServiceSpec:
        return self._service("migrate", "-m", "alembic", "upgrade", "head", ready_within_s=MIGRATE_WITHIN_S)

    def choose_model(self) -> ServiceSpec:
        """Prints the size to use; tells the person why, and shows the download, on stderr."""
        return self._service("model", "-m", "engines.catalog", talks=True, ready_within_s=MODEL_WITHIN_S)

    def services(self) -> list[ServiceSpec]:
        return [self.api(), self.relay(), self.worker(), self.retry_worker(), self.webhook_worker(), self.flower()]

    def api(self) -> ServiceSpec:
        return self._service(
            "api",
            "app.py",
            address=self.addresses.api,
            stage=STAGE_API,
            ready=lambda: answers(f"{self.addresses.api}/health/ready"),
            ready_within_s=READY_WITHIN_S,
            stop_within_s=API_STOP_S,
        )

    def relay(self) -> ServiceSpec:
        return self._service("relay", "relay.py", stage=STAGE_API, stop_within_s=10)

    def worker(self) -> ServiceSpec:
        """Leaves what crashed a child once to the isolated worker, unless WORKER_QUEUES says otherwise."""
        asked_for = "worker_queues" in self.settings.model_fields_set
        extra = {} if asked_for else {"WORKER_QUEUES": MAIN_QUEUES}
        return self._service("worker", "worker.py", stage=STAGE_WORKERS, stop_within_s=WORKER_STOP_S, extra=extra)

    def retry_worker(self) -> ServiceSpec:
        extra = {"WORKER_QUEUES": RETRY_QUEUES, "CELERY_CONCURRENCY": "1"}
        return self._service("worker-retry", "worker.py", stage=STAGE_WORKERS, stop_within_s=WORKER_STOP_S, extra=extra)

    def webhook_worker(self) -> ServiceSpec:
        """Waits for receivers on threads, so that no slow one holds up a transcription."""
        extra = {"WORKER_QUEUES": WEBHOOK_QUEUES}
        stop_s = max(WORKER_STOP_S, self.settings.webhook_timeout_seconds + 5)
        return self._service("worker-webhooks", "worker.py", stage=STAGE_WORKERS, stop_within_s=stop_s, extra=extra)

    def flower(self) -> ServiceSpec:
        """Read only: a window, never a control path. The password goes by the environment: ps does not show it."""
        user, password = flower_login(self.settings, self.home)
        command = ("-m", "celery", "-A", "celery_app", "flower", "--address=127.0.0.1")
        options = (f"--port={self.addresses.flower_port}", "--max_tasks=10000", "--read_only=True")
        return self._service(
            "flower",
            *command,
            *options,
            address=self.addresses.flower,
            stage=STAGE_WORKERS,
            extra={"FLOWER_BASIC_AUTH": f"{user}:{password}", "FLOWER_UNAUTHENTICATED_API": "false"},
            stop_within_s=5,
        )

    def _service(
        self, name: str, *arguments: str, extra: Mapping[str, str] | None = None, **options: Any
    ) -> ServiceSpec:
        argv = (sys.executable, *arguments)
        return ServiceSpec(name=name, argv=argv, env=self.environment | dict(extra or {}), **options)


def cuda_libraries() -> str:
    """The folder of the cuBLAS that `make` installs where an NVIDIA driver is; empty elsewhere."""
    try:
        package = importlib.util.find_spec("nvidia.cublas")
    except ModuleNotFoundError:
        return ""
    folders = [] if package is None else list(package.submodule_search_locations or ())
    return str(Path(folders[0]) / "lib") if folders else ""


def flower_login(settings: Settings, home: Home) -> tuple[str, str]:
    password = settings.flower_password.get_secret_value()
    if "," in password or "," in settings.flower_user or ":" in settings.flower_user:
        raise StackError("Flower splits at , and : so no comma in FLOWER_PASSWORD, and neither of them in FLOWER_USER.")
    return settings.flower_user, password or home.secret("flower")


def answers(url: str) -> bool:
    """Whether a GET gives 200."""
    try:
        with urlopen(url, timeout=2) as answer:  # noqa: S310 (our own http:// address)
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False
