"""The supervisor restarts what dies, stops in reverse order, and leaves nothing, however it ends. With stand-ins."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from stack.state import Entry, read_state
from stack.supervisor import ECHO_S, describe, next_delay
from tests.processes import is_gone, until

DRIVER = """
import json, sys
from pathlib import Path
from config import inherited_environment
from stack.process import ServiceSpec
from stack.supervisor import Stopped, Supervisor

folder = Path(sys.argv[1])
specs = [
    ServiceSpec(argv=(sys.executable, "-c", item.pop("code"), sys.argv[1]), env=inherited_environment(), **item)
    for item in json.loads(sys.argv[2])
]
try:
    with Supervisor(folder / "logs", folder / "stack.json") as supervisor:
        supervisor.add(*specs)
        (folder / "up").touch()
        supervisor.watch()
except Stopped:
    pass
"""
SLEEPER = "import time; time.sleep(600)"
STUBBORN = """
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(sys.argv[1] + "/deaf", "w").close()
time.sleep(600)
"""
PARENT = "import subprocess, time; subprocess.Popen(['sleep', '600']); time.sleep(600)"
ORPHANER = "import subprocess, time; subprocess.Popen('sleep 0.2 & sleep 0.1', shell=True).wait(); time.sleep(600)"
GIVES_NOTICE = """
import signal, sys, time
def leave(*_):
    with open(sys.argv[1] + "/left", "a") as file:
        file.write("{}\\n")
    sys.exit()
signal.signal(signal.SIGTERM, leave)
open(sys.argv[1] + "/{}-listens", "w").close()
time.sleep(600)
"""

LINGERS = """
import signal, sys, time
def leave(*_):
    time.sleep(1)
    open(sys.argv[1] + "/finished", "w").close()
    sys.exit()
signal.signal(signal.SIGTERM, leave)
open(sys.argv[1] + "/listens", "w").close()
time.sleep(600)
"""

Start = Callable[..., "Run"]


class Run:
    def __init__(self, folder: Path, services: list[dict[str, object]]) -> None:
        self.folder = folder
        command = (sys.executable, "-u", "-c", DRIVER, str(folder), json.dumps(services))
        self.driver = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, bufsize=1)
        until((folder / "up").exists)

    def entries(self) -> dict[str, Entry]:
        return {entry.name: entry for entry in read_state(self.folder / "stack.json")}

    def pid(self, name: str) -> int:
        return until(lambda: self.entries().get(name)).pid  # type: ignore[union-attr]  # until returns what is true

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.driver.send_signal(number)
        return self.driver.wait(20)


@pytest.fixture
def start(data_dir: Path) -> Iterator[Start]:
    runs: list[Run] = []

    def starts(*services: dict[str, object]) -> Run:
        runs.append(Run(data_dir, list(services)))
        return runs[-1]

    yield starts
    for run in runs:
        run.driver.kill()
        run.driver.communicate()


def test_what_dies_is_started_again_and_stack_json_names_its_new_pid(start: Start) -> None:
    run = start({"name": "worker", "code": SLEEPER, "address": "http://127.0.0.1:1"})
    first = run.pid("worker")
    os.kill(first, signal.SIGKILL)
    second = until(lambda: (entry := run.entries().get("worker")) and entry.pid != first and entry)
    assert second
    assert second.address == "http://127.0.0.1:1"
    assert not is_gone(second.pid)
    assert run.pid("stack") == run.driver.pid


def test_a_dead_service_is_not_listed_so_that_nobody_kills_who_has_its_pid_next(start: Start) -> None:
    run = start({"name": "worker", "code": SLEEPER}, {"name": "relay", "code": SLEEPER})
    os.kill(run.pid("worker"), signal.SIGKILL)
    until(lambda: "worker" not in run.entries())
    assert "relay" in run.entries()


def test_each_death_in_a_row_doubles_the_pause_up_to_half_a_minute() -> None:
    pauses = [1.0]
    for _ in range(6):
        pauses.append(next_delay(pauses[-1], lived_s=0.1))
    assert pauses == [1, 2, 4, 8, 16, 30, 30]


def test_ten_seconds_alive_are_forgiven() -> None:
    assert next_delay(30, lived_s=10) == 1
    assert next_delay(4, lived_s=9) == 8


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_everything_and_removes_stack_json(start: Start, number: signal.Signals) -> None:
    run = start({"name": "api", "code": SLEEPER}, {"name": "worker", "code": SLEEPER})
    pids = [run.pid("api"), run.pid("worker")]
    assert run.stop(number) == 0
    assert all(is_gone(pid) for pid in pids)
    assert not (run.folder / "stack.json").exists()


def test_what_was_started_last_is_stopped_first(start: Start, data_dir: Path) -> None:
    names = ("postgres", "redis", "api", "worker")
    run = start(
        *({"name": name, "stage": stage, "code": GIVES_NOTICE.format(name, name)} for stage, name in enumerate(names))
    )
    until(lambda: all((data_dir / f"{name}-listens").exists() for name in names))
    run.stop()
    assert (data_dir / "left").read_text().split() == list(reversed(names))


def test_who_does_not_stop_in_time_is_killed(start: Start) -> None:
    run = start({"name": "worker", "code": STUBBORN, "stop_within_s": 0.3})
    pid = run.pid("worker")
    until((run.folder / "deaf").exists)
    run.stop()
    assert is_gone(pid)


def test_a_second_ctrl_c_hurries(start: Start) -> None:
    run = start({"name": "worker", "code": STUBBORN, "stop_within_s": 600, "stage": 3})
    pid = run.pid("worker")
    until((run.folder / "deaf").exists)
    run.driver.send_signal(signal.SIGINT)
    until(lambda: "Stopping" in (run.driver.stdout.readline() if run.driver.stdout else ""))
    time.sleep(ECHO_S * 1.5)  # sooner, it would be taken for an echo
    run.driver.send_signal(signal.SIGINT)
    assert run.driver.wait(10) == 0
    assert is_gone(pid)


def test_kill_9_of_the_supervisor_takes_everything_down(start: Start) -> None:
    run = start({"name": "api", "code": STUBBORN}, {"name": "worker", "code": SLEEPER})
    pids = [run.pid("api"), run.pid("worker")]
    run.driver.kill()
    until(lambda: all(is_gone(pid) for pid in pids))


def test_what_a_dead_service_leaves_behind_is_killed_before_its_successor_starts(start: Start) -> None:
    run = start({"name": "worker", "code": PARENT})
    parent = psutil.Process(run.pid("worker"))
    grandchild = until(parent.children)[0]
    parent.kill()
    until(lambda: is_gone(grandchild.pid))


def test_orphans_are_collected_where_process_1_does_not(start: Start) -> None:
    run = start({"name": "worker", "code": ORPHANER})
    supervisor = psutil.Process(run.driver.pid)
    until(lambda: len(supervisor.children()) > 1)
    until(lambda: [child.pid for child in supervisor.children()] == [run.pid("worker")])


def test_a_wish_that_arrives_twice_at_once_is_one_wish(start: Start, data_dir: Path) -> None:
    run = start({"name": "worker", "code": LINGERS, "stop_within_s": 20, "stage": 3})
    until((data_dir / "listens").exists)
    run.driver.send_signal(signal.SIGTERM)
    run.driver.send_signal(signal.SIGINT)
    assert run.driver.wait(20) == 0
    assert (data_dir / "finished").exists()


def test_what_cannot_be_started_again_now_is_tried_later_and_the_others_stay(start: Start, data_dir: Path) -> None:
    run = start({"name": "worker", "code": SLEEPER}, {"name": "relay", "code": SLEEPER})
    worker, relay = run.pid("worker"), run.pid("relay")
    logs = (data_dir / "logs").rename(data_dir / "away")
    (data_dir / "logs").touch()  # no folder to write a log to
    os.kill(worker, signal.SIGKILL)
    until(lambda: "worker ended" in (run.driver.stdout.readline() if run.driver.stdout else ""))
    until(lambda: "worker ended" in (run.driver.stdout.readline() if run.driver.stdout else ""))
    (data_dir / "logs").unlink()
    logs.rename(data_dir / "logs")
    assert run.pid("worker") != worker
    assert run.pid("relay") == relay


def test_what_dies_from_the_start_is_given_up_with_the_end_of_its_log(data_dir: Path) -> None:
    driver = DRIVER.replace("supervisor.watch()", "supervisor.wait(lambda: False, 60, 'api')")
    services = json.dumps([{"name": "api", "code": "raise SystemExit('port is cursed')"}])
    command = (sys.executable, "-c", driver, str(data_dir), services)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "port is cursed" in done.stderr.splitlines()[-1]


def test_a_death_is_described_as_a_person_would() -> None:
    assert describe(3) == "exit code 3"
    assert describe(-9) == "killed by SIGKILL"
