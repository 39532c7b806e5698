"""Callers for tests: keys in the database, and the API as a real process that they call."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

from access import keys
from access.caller import Caller
from config import Settings
from database import transaction
from stack.home import free_port
from stack.plan import answers
from tests.processes import until

ROOT = Path(__file__).parents[1]


def make_key(settings: Settings, name: str = "somebody", **wanted: object) -> tuple[UUID, str]:
    """Its id, and the key."""
    with transaction() as session:
        key, token = keys.create(session, keys.KeyRequest(name=name, **wanted), settings)  # type: ignore[arg-type]
        return key.id, token


def key_of(settings: Settings, name: str = "somebody", **wanted: object) -> dict[str, str]:
    """The header of a new key."""
    return bearer(make_key(settings, name, **wanted)[1])


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def revoke(key_id: UUID) -> None:
    with transaction() as session:
        keys.revoke(session, key_id)


def limited(per_minute: int, owner: str = "key:1") -> Caller:
    return Caller(owner=owner, name="somebody", role="user", rate_limit_per_minute=per_minute)


@contextmanager
def serving(log: Path, **settings: object) -> Iterator[str]:
    """`python app.py` with this process's settings and these, at a free port: its address."""
    port = free_port()
    told = {name.upper(): str(value) for name, value in settings.items()} | {"PORT": str(port)}
    with log.open("wb") as out:
        process = subprocess.Popen((sys.executable, "app.py"), cwd=ROOT, env=os.environ | told, stdout=out, stderr=out)
    url = f"http://127.0.0.1:{port}"
    try:
        until(lambda: answers(f"{url}/health/live") or _ended(process, log))
        yield url
    finally:
        process.terminate()
        process.wait(30)


def _ended(process: subprocess.Popen[bytes], log: Path) -> bool:
    assert process.poll() is None, log.read_text()
    return False
