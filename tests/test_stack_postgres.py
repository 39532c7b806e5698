"""The embedded PostgreSQL keeps what was committed, lets nobody in without the password, and goes when it is told."""

import os
import signal
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest

from stack.home import Home
from stack.postgres import Postgres
from stack.process import StackError
from tests.processes import is_gone, until

pytestmark = pytest.mark.xdist_group("postgres")  # so that the shared server is started once


@pytest.fixture(scope="module")
def server(session_folder: Path) -> Iterator[Postgres]:
    with Postgres(Home(session_folder / "alone"), durable=False) as running:
        yield running


def run(url: str, statement: str) -> list[tuple[object, ...]]:
    with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


def test_what_was_committed_survives_a_kill_9_and_a_restart(data_dir: Path) -> None:
    with Postgres(Home(data_dir)) as server:
        run(server.url, "CREATE TABLE notes (body text); INSERT INTO notes VALUES ('kept')")
        server.kill()
        server.start()
        server.restart()
        assert run(server.url, "SELECT body FROM notes") == [("kept",)]


def test_it_syncs_to_disk_unless_it_is_for_tests(data_dir: Path) -> None:
    with Postgres(Home(data_dir)) as server:
        assert run(server.url, "SHOW fsync") == [("on",)]
        assert run(server.url, "SHOW synchronous_commit") == [("on",)]
        assert run(server.url, "SHOW data_checksums") == [("on",)]


def test_a_stranger_on_the_machine_needs_the_password(server: Postgres) -> None:
    wrong = server.url.replace(server.home.secret("postgres"), "guess")
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        run(wrong, "SELECT 1")
    assert run(server.url, "SHOW listen_addresses") == [("127.0.0.1",)]
    assert run(server.url, "SHOW unix_socket_directories") == [("",)]


def test_its_password_is_readable_by_its_owner_alone(data_dir: Path) -> None:
    home = Home(data_dir)
    home.secret("postgres")
    assert stat.S_IMODE((data_dir / "secrets").stat().st_mode) == 0o700
    assert stat.S_IMODE((data_dir / "secrets" / "postgres").stat().st_mode) == 0o600


def test_a_pid_file_that_names_a_stranger_does_not_block_the_start(data_dir: Path) -> None:
    with Postgres(Home(data_dir), durable=False) as server:
        server.kill()
        pid_file = data_dir / "postgres" / "postmaster.pid"
        lines = pid_file.read_text().splitlines()
        lines[0] = str(os.getppid())  # alive, and no PostgreSQL: what a reboot of a container leaves
        pid_file.write_text("\n".join(lines) + "\n")
        server.start()
        assert run(server.url, "SELECT 1") == [(1,)]


def test_a_lost_password_is_named_and_nothing_is_overwritten(data_dir: Path) -> None:
    home = Home(data_dir)
    Postgres(home, durable=False).start().stop()
    home.secret_path("postgres").unlink()
    lost = Postgres(home, durable=False)
    try:
        with pytest.raises(StackError, match="secrets/postgres is not the password of"):
            lost.start()
    finally:
        lost.stop()


def test_it_waits_for_a_predecessor_that_is_still_going_down(data_dir: Path) -> None:
    with Postgres(Home(data_dir), durable=False) as first:
        os.kill(first.pid, signal.SIGINT)
        with Postgres(Home(data_dir), durable=False) as second:
            assert run(second.url, "SELECT 1") == [(1,)]
            assert is_gone(first.pid)


def test_it_stops_with_clients_connected(data_dir: Path) -> None:
    server = Postgres(Home(data_dir), durable=False).start()
    with closing(psycopg2.connect(server.url)):
        server.stop()
    until(lambda: is_gone(server.pid))
    assert not (data_dir / "postgres" / "postmaster.pid").exists()


def test_lowercasing_knows_more_than_ascii_whatever_the_locale_of_the_machine(server: Postgres) -> None:
    assert run(server.url, "SELECT lower('ÄЖ')") == [("äж",)]


def test_vectors_are_there_for_search(server: Postgres) -> None:
    run(server.url, "CREATE EXTENSION vector")
    assert run(server.url, "SELECT '[1,2]'::vector <-> '[1,3]'::vector") == [(1.0,)]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to hand it to another user")
def test_root_hands_it_to_the_owner_of_the_folder(data_dir: Path) -> None:
    os.chown(data_dir, 65534, 65534)
    home = Home(data_dir)
    with Postgres(home, durable=False) as server:
        assert (data_dir / "postgres").stat().st_uid == 65534
        assert run(server.url, "SELECT 1") == [(1,)]
    home.hand_over()
    assert {path.lstat().st_uid for path in data_dir.rglob("*")} == {65534}
