"""The command `transcribe` against the whole service: what people type, and what they get. One stack for all of it."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psycopg2
import pytest

from stack.running import Stack
from tests.client_play import (
    ENGLISH,
    Person,
    hush,
    interrupted,
    left_on_screen,
    narrow,
    recording,
    seen_in_a_terminal,
    waits_for,
)
from tests.far_server import far_server
from tests.processes import until

pytestmark = [pytest.mark.xdist_group("client stack"), pytest.mark.timeout(300)]
OPERATOR = "b0c4de8a9f1e2d3c4b5a69788796a5b4"
SPOKEN = "one two three four five six seven"
NOBODY = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    settings = {"whisper_model_size": "demo", "lease_seconds": 4, "api_key": OPERATOR, "outbound_allow": "127.0.0.0/8"}
    with Stack(tmp_path_factory.mktemp("client"), **settings) as running:  # type: ignore[arg-type]
        health = f"{running.url}/admin/health"
        until(lambda: httpx.get(health, headers={"X-API-Key": OPERATOR}).json()["workers"].get("alive"), 60)
        yield running


@pytest.fixture
def person(stack: Stack, tmp_path: Path) -> Person:
    return Person(tmp_path, stack.url, OPERATOR)


@pytest.fixture
def began() -> datetime:
    return datetime.now(UTC)


class Jobs:
    """The rows that this test has made."""

    def __init__(self, stack: Stack, since: datetime) -> None:
        lines = (stack.data_dir / "secrets" / "servers.env").read_text().splitlines()
        self._url = dict(line.split("=", 1) for line in lines if line)["DATABASE_URL"]
        self._since = since

    def rows(self) -> list[tuple[str, str]]:
        """(file, status)"""
        query = "SELECT filename, status FROM transcription_jobs WHERE created_at >= %s ORDER BY filename"
        with psycopg2.connect(self._url) as connection, connection.cursor() as cursor:
            cursor.execute(query, (self._since,))
            return cursor.fetchall()

    def __len__(self) -> int:
        return len(self.rows())


@pytest.fixture
def jobs(stack: Stack, began: datetime) -> Jobs:
    return Jobs(stack, began)


def test_a_recording_becomes_text_on_stdout_and_nothing_else_does(person: Person) -> None:
    done = person.runs("submit", ENGLISH, "--wait")
    assert (done.returncode, done.stdout) == (0, f"{SPOKEN}\n"), done.stderr
    assert "sent, job" in done.stderr


def test_without_wait_the_ids_are_printed_in_the_order_of_the_inputs(person: Person, jobs: Jobs) -> None:
    paths = [hush(person.home / name, number) for number, name in enumerate(("c.wav", "a.wav", "b.wav"))]
    done = person.runs("submit", *paths)
    ids = done.stdout.split()
    assert (done.returncode, len(ids), len(jobs)) == (0, 3, 3), done.stderr
    shown = [json.loads(person.runs("status", job_id, "--json").stdout)[0]["filename"] for job_id in ids]
    assert shown == ["c.wav", "a.wav", "b.wav"]


def test_a_folder_becomes_one_file_for_each_recording_in_the_same_tree(person: Person, jobs: Jobs) -> None:
    recording(person.home / "in" / "one.wav", 1)
    recording(person.home / "in" / "deep" / "er" / "two.wav", 2)
    hush(person.home / "in" / ".hidden" / "three.wav")
    (person.home / "in" / "notes.txt").write_text("no recording")
    done = person.runs("submit", "in", "-o", "out", "-f", "srt", "-f", "txt")
    assert done.returncode == 0, done.stderr
    found = {path.relative_to(person.home / "out").as_posix(): path for path in (person.home / "out").rglob("*.*")}
    assert sorted(found) == ["deep/er/two.srt", "deep/er/two.txt", "one.srt", "one.txt"]
    assert found["one.srt"].read_text().startswith("1\n00:00:0")
    assert found["deep/er/two.txt"].read_text().strip() == SPOKEN
    assert [name for name, _ in jobs.rows()] == ["one.wav", "two.wav"]


def test_what_is_written_is_skipped_unless_it_is_to_be_overwritten(person: Person, jobs: Jobs) -> None:
    path = hush(person.home / "a.wav", 3)
    person.runs("submit", path, "-o", "out")
    (person.home / "out" / "a.txt").write_text("mine")
    again = person.runs("submit", path, "-o", "out")
    assert (again.returncode, (person.home / "out" / "a.txt").read_text()) == (0, "mine")
    assert "skipped" in again.stderr
    assert person.runs("submit", path, "-o", "out", "--overwrite").returncode == 0
    assert ((person.home / "out" / "a.txt").read_text(), len(jobs)) == ("", 1)


def test_a_glob_and_two_recordings_of_one_name_overwrite_nothing(person: Person, jobs: Jobs) -> None:
    recording(person.home / "x" / "talk.wav", 4)
    hush(person.home / "y" / "talk.wav", 4)
    hush(person.home / "y" / "talk.oga", 5)
    done = person.runs("submit", "?/*.wav", "-o", "glob")
    assert done.returncode == 0, done.stderr
    assert (person.home / "glob" / "x" / "talk.txt").read_text().strip() == SPOKEN
    assert (person.home / "glob" / "y" / "talk.txt").read_text() == ""
    named = person.runs("submit", "x/talk.wav", "y/talk.wav", "y/talk.oga", "-o", "named")
    assert named.returncode == 0, named.stderr
    names = sorted(path.name for path in (person.home / "named").iterdir())
    assert names == ["talk.oga.txt", "talk.wav (2).txt", "talk.wav.txt"]
    assert (person.home / "named" / "talk.wav.txt").read_text().strip() == SPOKEN
    assert len(jobs) == 3, "the same content is the same job"


def test_fifty_recordings_in_one_go(person: Person, jobs: Jobs) -> None:
    for number in range(50):
        hush(person.home / "in" / f"{number:02}.wav", 100 + number)
    code, screen = seen_in_a_terminal(person, "submit", "in", "-o", "out", "-f", "vtt", "-j", "8")
    assert code == 0, screen
    assert len(list((person.home / "out").glob("*.vtt"))) == 50
    assert [status for _, status in jobs.rows()] == ["completed"] * 50
    assert "50 transcribed" in screen
    frames = re.findall(r"(?:\x1b\[1A\x1b\[2K)+", screen)
    assert max(frame.count("\x1b[1A") for frame in frames) <= 8 + 8 + 1, "more bars than what is active, and the whole"


def test_in_a_terminal_only_results_are_left_when_it_is_over(person: Person) -> None:
    paths = [recording(person.home / name, number) for number, name in enumerate(("a.wav", "b.wav"), start=150)]
    code, screen = seen_in_a_terminal(person, "submit", *(path.name for path in paths), "--wait")
    texts = ["==> a.wav (txt) <==", SPOKEN, "==> b.wav (txt) <==", SPOKEN]
    assert (code, left_on_screen(screen)) == (0, [*texts, "2 transcribed"])
    assert "Altogether" in screen


def test_standard_input_is_a_recording(person: Person) -> None:
    done = person.runs("submit", "-", "--name", "said.wav", "-f", "srt", stdin=ENGLISH.read_bytes())
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1\n00:00:0")
    assert SPOKEN in done.stdout


def test_an_address_is_fetched_by_the_service(person: Person) -> None:
    with far_server(lambda exchange: exchange.answer(200, ENGLISH.read_bytes())) as far:
        done = person.runs("submit", far.url("/far%20away.wav"), "-o", "out")
    assert done.returncode == 0, done.stderr
    assert (person.home / "out" / "far away.txt").read_text().strip() == SPOKEN


def test_ctrl_c_leaves_the_jobs_and_the_same_command_goes_on(person: Person, jobs: Jobs) -> None:
    for number in range(4):
        recording(person.home / "in" / f"{number}.wav", 200 + number, times=4)
    command = ("submit", "in", "-o", "out", "-f", "txt", "--beam-size", "1")
    process = person.starts(*command)
    waits_for(process, lambda: len(jobs) == 4)
    code, said = interrupted(process)
    assert code == 130, said
    assert re.search(r"\d jobs? on the server goe?s? on without you", said), said
    assert re.search(r"same command again, .*, or `transcribe status [0-9a-f-]{36}`", said), said
    assert "Traceback" not in said
    again = person.runs(*command)
    assert again.returncode == 0, again.stderr
    assert len(jobs) == 4
    assert len(list((person.home / "out").glob("*.txt"))) == 4
    assert "sent, job" not in again.stderr


def test_a_killed_upload_is_made_good_by_the_same_command(person: Person, stack: Stack, jobs: Jobs) -> None:
    path = recording(person.home / "large.wav", 300, times=60)
    with narrow(stack.url, lets_through=1_000_000) as way:
        process = person.at(way.url).starts("submit", path)
        waits_for(process, lambda: way.passed >= 1_000_000)
        code, _ = interrupted(process, signal.SIGKILL)
    assert (code, len(jobs)) == (-signal.SIGKILL, 0)
    first, again = (person.runs("submit", path) for _ in range(2))
    assert (first.returncode, first.stdout) == (0, again.stdout), first.stderr
    assert len(jobs) == 1
    person.runs("cancel", first.stdout.strip(), "--purge")


def test_what_this_machine_has_forgotten_the_service_knows(person: Person, jobs: Jobs) -> None:
    path = hush(person.home / "a.wav", 400)
    first = person.runs("submit", path)
    (person.home / ".local" / "state" / "transcribe" / "jobs.jsonl").unlink()
    again = person.runs("submit", path)
    assert (first.stdout, first.returncode) == (again.stdout, 0)
    assert len(jobs) == 1


def test_two_commands_at_once_make_one_job(person: Person, jobs: Jobs) -> None:
    path = hush(person.home / "a.wav", 401)
    both = [person.starts("submit", path) for _ in range(2)]
    ids = {process.communicate(timeout=60)[0] for process in both}
    assert (len(ids), len(jobs)) == (1, 1)


def test_failed_and_purged_jobs_are_submitted_anew_and_again_makes_new_ones(person: Person, jobs: Jobs) -> None:
    broken = person.home / "broken.mp3"
    broken.write_text("invalid\n")
    first, again = (person.runs("submit", broken, "--wait", "--json") for _ in range(2))
    assert (first.returncode, again.returncode) == (1, 1)
    assert json.loads(first.stdout)["job_id"] != json.loads(again.stdout)["job_id"]
    assert "cannot be read" in first.stderr
    path = hush(person.home / "a.wav", 402)
    (job_id,) = person.runs("submit", path).stdout.split()
    assert person.runs("cancel", job_id, "--purge").returncode == 0
    (anew,) = person.runs("submit", path).stdout.split()
    (another,) = person.runs("submit", path, "--again").stdout.split()
    assert len({job_id, anew, another}) == 3
    assert len(jobs) == 4


def test_a_restart_of_the_service_is_survived(person: Person, stack: Stack, jobs: Jobs) -> None:
    path = recording(person.home / "long.wav", 500, times=15)
    process = person.starts("submit", path, "-o", "out")
    waits_for(process, lambda: len(jobs) == 1)
    os.kill(stack.pid_of("api"), signal.SIGKILL)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert (person.home / "out" / "long.txt").read_text().startswith("one two three")


def test_a_watched_folder_is_transcribed_once_across_a_restart(person: Person, jobs: Jobs) -> None:
    command = ("watch", "inbox", "-f", "txt", "--interval", "0.2s", "--settle", "1s")
    inbox = person.home / "inbox"
    recording(inbox / "before.wav", 600)
    process = person.starts(*command)
    waits_for(process, (inbox / "before.txt").exists)
    recording(inbox / "sub" / "while.wav", 601)
    waits_for(process, (inbox / "sub" / "while.txt").exists)
    code, said = interrupted(process)
    assert code == 130, said
    assert (inbox / "sub" / "while.txt").read_text().strip() == SPOKEN
    (inbox / "before.txt").unlink()
    hush(inbox / "after.wav", 602)
    process = person.starts(*command)
    waits_for(process, lambda: (inbox / "after.txt").exists() and (inbox / "before.txt").exists())
    interrupted(process)
    assert [name for name, _ in jobs.rows()] == ["after.wav", "before.wav", "while.wav"]


def test_options_reach_the_service_and_a_refused_one_is_named_as_it_is_here(person: Person) -> None:
    options = ("-l", "en", "--priority", "high", "--prompt", "Counting.", "--no-vad", "--delete-after", "7d")
    metadata = ("-m", "customer=7", "-m", '{"tags": ["a"]}')
    done = person.runs("submit", ENGLISH, *options, *metadata, "--word-timestamps", "--wait", "-f", "json")
    assert json.loads(done.stdout)["segments"][0]["words"], done.stderr
    (job,) = json.loads(person.runs("list", "-n", "1", "--json").stdout)
    assert (job["language"], job["priority"], job["metadata"]) == ("en", "high", {"customer": "7", "tags": ["a"]})
    assert job["delete_at"] is not None
    refused = person.runs("submit", ENGLISH, "--model-size", "enormous")
    assert refused.returncode == 4
    assert refused.stderr.startswith("error: --model-size: unknown model; expected one of tiny")


def test_subtitles_have_the_lines_that_were_asked_for_and_a_job_has_times_of_words_where_these_need_them(
    person: Person,
) -> None:
    options = ("-f", "srt", "--max-line-width", "14", "--max-line-count", "1", "--highlight-words")
    done = person.runs("submit", ENGLISH, "-m", "test=subtitles", *options)
    lines = [line for line in done.stdout.splitlines() if re.search("[a-z]", line)]
    assert "<u>one</u> two" in lines[0], done.stderr
    assert all(len(re.sub("</?u>", "", line)) <= 14 for line in lines)
    (job,) = json.loads(person.runs("list", "-n", "1", "--json").stdout)
    assert "<u>" in person.runs("result", job["job_id"], "-f", "vtt", "--highlight-words").stdout
    refused = person.runs("result", job["job_id"], "-f", "txt", "--max-line-width", "42")
    assert (refused.returncode, "is for srt and vtt, not for txt" in refused.stderr) == (4, True), refused.stderr


def test_jobs_are_listed_shown_cancelled_and_fetched(person: Person) -> None:
    (job_id,) = person.runs("submit", ENGLISH, "-m", "test=list", "--again").stdout.split()
    until(lambda: "completed" in person.runs("status", job_id).stdout, 30)
    rows = [line.split("\t") for line in person.runs("list", "--since", "1h", "--all").stdout.splitlines()]
    assert [job_id, "completed", "english.wav"] in [row[:3] for row in rows]
    assert person.runs("list", "--until", "1h", "--json").stdout == "[]\n"
    shown = person.runs("status", job_id).stdout
    assert re.search(r"completed +20\d\d-\d\d-\d\d \d\d:\d\d:\d\d CES?T \(just now\)", shown), shown
    written = person.home / "seven.srt"
    assert person.runs("result", job_id, "-f", "srt", "-o", written).returncode == 0
    assert written.read_text() == person.runs("result", job_id, "-f", "srt").stdout
    refused = person.runs("cancel", job_id, NOBODY)
    assert refused.returncode == 4, refused.stderr
    assert refused.stderr.count("error: ") == 2
    (waiting,) = person.runs("submit", recording(person.home / "long.wav", 700, times=40)).stdout.split()
    assert person.runs("result", waiting).returncode == 4
    assert person.runs("cancel", waiting).stderr == f"{waiting}: cancelled\n"


def test_all_pages_of_a_list_are_fetched(person: Person, stack: Stack) -> None:
    files = [("files", (f"page{number}.wav", hush(person.home / "a.wav", number).read_bytes())) for number in range(60)]
    for _ in range(2):
        httpx.post(f"{stack.url}/transcribe/batch", files=files, headers={"X-API-Key": OPERATOR}).raise_for_status()
    found = json.loads(person.runs("list", "-q", "page", "--all", "--json").stdout)
    assert len({job["job_id"] for job in found}) == 120
    assert len(person.runs("list", "-q", "page", "-n", "107").stdout.splitlines()) == 107


def test_dead_letters_are_listed_replayed_and_resolved(person: Person) -> None:
    for name in ("one.mp3", "two.mp3"):
        (person.home / name).write_text(f"no sound in {name}\n")
    done = person.runs("submit", "one.mp3", "two.mp3", "--wait", "--json")
    one, two = (json.loads(line)["job_id"] for line in done.stdout.splitlines())

    def letters(job_id: str, *options: str) -> list[dict[str, Any]]:
        done = person.runs("errors", "list", "--all", "--json", *options)
        assert done.returncode == 0, done.stderr
        return [letter for letter in json.loads(done.stdout) if letter["job_id"] == job_id]

    (letter,) = letters(one, "--type", "undecodable_audio")
    assert letters(one, "--type", "hung") == []
    assert letter["id"] in person.runs("errors", "list").stdout
    assert "one.mp3" in person.runs("errors", "show", letter["id"]).stdout
    closed = person.runs("errors", "resolve", letter["id"], "--json")
    assert json.loads(closed.stdout)[0]["resolution"] == "dismissed"
    assert (letters(one), len(letters(one, "--resolved"))) == ([], 1)
    replayed = person.runs("errors", "replay", letters(two)[0]["id"])
    assert (replayed.returncode, replayed.stdout) == (0, f"{two}\n"), replayed.stderr
    until(lambda: letters(two), 60)
    everything = json.loads(person.runs("errors", "replay", "--all", "--type", "undecodable_audio", "--json").stdout)
    assert two in everything["job_ids"]
    assert one not in everything["job_ids"]


def test_health_shows_every_part_and_says_by_its_exit_code_what_is_not_well(person: Person, stack: Stack) -> None:
    done = person.runs("health")
    assert done.returncode == 0, done.stderr
    parts = dict(line.split("\t")[:2] for line in done.stdout.splitlines() if "\t" in line)
    assert {"database", "redis", "relay", "storage", "workers", "transcription.normal"} <= parts.keys()
    assert json.loads(person.runs("health", "--json").stdout)["status"] == "ok"
    relay = stack.pid_of("relay")
    os.kill(relay, signal.SIGSTOP)
    try:
        unwell = until(lambda: (found := person.runs("health")).returncode and found, 60)
    finally:
        os.kill(relay, signal.SIGCONT)
    assert isinstance(unwell, subprocess.CompletedProcess)
    assert (unwell.returncode, "Not well: relay is away." in unwell.stderr) == (1, True), unwell.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("submit", str(ENGLISH)),
        ("submit", str(ENGLISH), "--wait"),
        ("list",),
        ("status", NOBODY),
        ("cancel", NOBODY),
        ("errors", "list"),
        ("errors", "replay", "--all", "--type", "nothing_of_the_kind"),
        ("health",),
        ("config",),
    ],
)
def test_with_json_stdout_is_json_before_and_after_the_command(person: Person, command: tuple[str, ...]) -> None:
    for arguments in (("--json", *command), (*command, "--json")):
        json.loads(person.runs(*arguments).stdout)


@pytest.mark.parametrize("key", ["", "tk_wrong"])
def test_without_a_good_key_the_next_step_is_said(person: Person, stack: Stack, key: str, jobs: Jobs) -> None:
    for command in (("list",), ("submit", ENGLISH), ("health",)):
        done = Person(person.home, stack.url, key).runs(*command)
        assert (done.returncode, done.stdout) == (4, ""), done.stderr
        assert "Set TRANSCRIBE_KEY, or give --key." in done.stderr
    assert len(jobs) == 0


def test_of_many_recordings_a_bad_one_does_not_sink_the_others(person: Person) -> None:
    good, bad = hush(person.home / "good.wav", 800), person.home / "bad.docx"
    bad.write_text("text " * 100)
    done = person.runs("submit", bad, good, "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 4
    assert [bool(line["job_id"]) for line in lines] == [False, True]
    assert "neither the file name nor the content" in lines[0]["error"]
