"""What is started: ports that are free, no door open to strangers, and a command that works when pasted."""

import shlex
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from config import Settings
from jobs.routing import QUEUES
from stack.banner import banner
from stack.home import Home, free_port
from stack.plan import Addresses, Plan, choose_addresses, flower_login, reachable
from stack.process import ROOT, StackError

Configure = Callable[..., Settings]


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


@pytest.fixture
def plan(configure: Configure, tmp_path: Path) -> Plan:
    return make_plan(configure(), tmp_path)


def make_plan(settings: Settings, folder: Path, model: str = "demo") -> Plan:
    addresses = Addresses(settings.host, 8000, 8001)
    return Plan(settings, Home(folder), addresses, "postgresql://there/db", "redis://there", model)


def test_an_address_that_strangers_can_reach_needs_a_key(configure: Configure, tmp_path: Path) -> None:
    with pytest.raises(StackError, match=r"HOST=0.0.0.0 lets strangers in: set API_KEY"):
        choose_addresses(configure(host="0.0.0.0"), Home(tmp_path))
    with_key = configure(host="0.0.0.0", api_key="5f3a9c0e7b2d4816", port=free_port())
    assert choose_addresses(with_key, Home(tmp_path)).api.startswith("http://127.0.0.1:")


def test_a_taken_port_is_named_with_one_that_is_free(configure: Configure, tmp_path: Path, taken: int) -> None:
    with pytest.raises(StackError, match=rf"Port {taken} is taken. Give another: make run PORT=\d+"):
        choose_addresses(configure(port=taken), Home(tmp_path))
    with pytest.raises(StackError, match=rf"Port {taken} is taken. Give another: make run FLOWER_PORT=\d+"):
        choose_addresses(configure(port=free_port(), flower_port=taken), Home(tmp_path))


def test_flower_moves_aside_when_nobody_asked_for_its_port(configure: Configure, tmp_path: Path, taken: int) -> None:
    try:
        addresses = choose_addresses(configure(port=taken - 1), Home(tmp_path))
    except StackError:
        pytest.skip("the port before it is taken too")
    assert addresses.flower_port != taken


def test_the_port_of_a_server_is_kept_until_somebody_takes_it(tmp_path: Path) -> None:
    port = Home(tmp_path).port("redis")
    assert Home(tmp_path).port("redis") == port
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        assert Home(tmp_path).port("redis") != port


@pytest.mark.parametrize(
    ("host", "called"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("10.0.0.7", "10.0.0.7")],
)
def test_the_printed_address_is_one_that_this_machine_can_call(host: str, called: str) -> None:
    assert reachable(host) == called


def test_what_crashed_a_child_is_left_to_a_worker_of_its_own(plan: Plan) -> None:
    assert plan.worker().env["WORKER_QUEUES"] == "transcription.high,transcription.normal"
    assert plan.retry_worker().env["WORKER_QUEUES"] == "transcription.retry,transcription.dlq"
    assert plan.retry_worker().env["CELERY_CONCURRENCY"] == "1"


def test_every_queue_has_a_worker(plan: Plan) -> None:
    drawn = [service.env["WORKER_QUEUES"] for service in plan.services() if service.name.startswith("worker")]
    assert sorted(queue for queues in drawn for queue in queues.split(",")) == sorted(QUEUES)


def test_a_worker_of_webhooks_may_finish_what_it_sends(configure: Configure, tmp_path: Path) -> None:
    patient = make_plan(configure(webhook_timeout_seconds=60), tmp_path)
    assert patient.webhook_worker().stop_within_s > 60


def test_queues_that_a_person_has_chosen_stay(configure: Configure, tmp_path: Path) -> None:
    chosen = make_plan(configure(worker_queues="transcription.high"), tmp_path)
    assert chosen.worker().env["WORKER_QUEUES"] == "transcription.high"


def test_every_service_is_told_where_everything_is(plan: Plan) -> None:
    for service in plan.services():
        assert service.env["DATABASE_URL"] == "postgresql://there/db"
        assert service.env["REDIS_URL"] == "redis://there"
        assert service.env["WHISPER_MODEL_SIZE"] == "demo"
        assert Path(service.env["DATA_DIR"]).is_absolute()


def test_no_password_is_on_a_command_line_or_in_a_repr(configure: Configure, tmp_path: Path) -> None:
    plan = make_plan(configure(flower_password="tell-nobody"), tmp_path)
    for service in plan.services():
        assert "tell-nobody" not in " ".join(service.argv)
        assert "tell-nobody" not in repr(service)


@pytest.mark.parametrize("values", [{"flower_password": "one,two"}, {"flower_user": "a:b"}])
def test_a_login_that_flower_would_split_is_refused(
    configure: Configure, tmp_path: Path, values: dict[str, str]
) -> None:
    with pytest.raises(StackError, match="Flower splits"):
        flower_login(configure(**values), Home(tmp_path))


def test_a_relative_data_folder_means_the_same_to_every_service(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plan = make_plan(configure(data_dir="here"), Path("here"))
    assert plan.environment["DATA_DIR"] == str(tmp_path / "here")


def test_the_banner_has_a_line_to_paste_and_no_password(plan: Plan) -> None:
    text = banner(plan)
    command = shlex.split(next(line for line in text.splitlines() if "curl" in line))
    assert command[0] == "curl"
    assert command[-1] == "http://127.0.0.1:8000/transcribe/"
    assert "model_size=demo" in command
    assert plan.home.secret("flower") not in text
    assert str(plan.home.secret_path("flower")) in text


def test_the_banner_names_a_recording_that_exists_where_samples_are(plan: Plan) -> None:
    if not (ROOT / "demo" / "samples").is_dir():
        pytest.skip("no samples here")
    command = shlex.split(next(line for line in banner(plan).splitlines() if "curl" in line))
    recording = next(word for word in command if word.startswith("file=@"))
    assert Path(recording.removeprefix("file=@")).is_file()


def test_with_a_key_the_line_takes_it_from_the_environment(configure: Configure, tmp_path: Path) -> None:
    text = banner(make_plan(configure(api_key="5f3a9c0e7b2d4816"), tmp_path))
    assert '-H "Authorization: Bearer $API_KEY"' in text
    assert "5f3a9c0e7b2d4816" not in text


def test_counters_are_kept_in_a_folder_that_goes_with_the_run_or_before_the_next(tmp_path: Path) -> None:
    home = Home(tmp_path)
    killed = home.counters()
    (killed / "counter_1.db").write_bytes(b"x")
    ours = home.counters()
    assert not killed.exists(), "of a run that could not tidy up"
    assert ours.is_dir()
    home.forget_counters()
    assert not ours.exists()
    home.forget_counters()
