"""Keeps the services running: starts them in order, restarts what dies, stops them in reverse.

One thread, because the kernel ties a child's death signal to the thread that started it.
"""

import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from os import getpid
from pathlib import Path
from types import FrameType
from typing import Self

from stack.process import Process, ServiceSpec, StackError, become_reaper, reap_orphans, rotate_running
from stack.state import SUPERVISOR, Entry, write_state

TICK_S = 0.1
FIRST_DELAY_S, LONGEST_DELAY_S = 1.0, 30.0
CALM_AFTER_S = 10  # a service that ran for this long does not die of itself: it starts again with the first delay
HOPELESS_AFTER = 3  # deaths of one service before the stack was ever ready
ROTATE_EVERY_S = 10
ECHO_S = 0.3  # signals closer together than this are one
STAGE_SERVICES = 2  # the embedded servers come before, in stages 0 and 1


class Stopped(Exception):
    """Somebody asked us to stop while we were waiting for something."""


@dataclass(slots=True)
class Watched:
    process: Process
    started_at: float = 0
    delay_s: float = FIRST_DELAY_S
    due_at: float | None = None  # when to start it again; None: it runs, as far as we know
    deaths: int = 0


def next_delay(delay_s: float, lived_s: float) -> float:
    return FIRST_DELAY_S if lived_s >= CALM_AFTER_S else min(delay_s * 2, LONGEST_DELAY_S)


class Supervisor:
    def __init__(
        self, logs: Path, state: Path, *, say: Callable[[str], None] = print, mirror: Callable[[], None] = lambda: None
    ) -> None:
        self._logs = logs
        self._state = state
        self._say = say
        self._mirror = mirror
        self._watched: list[Watched] = []
        self._once: list[Process] = []
        self._asked_to_stop = 0
        self._asked_at = float("-inf")
        self._rotate_at = 0.0
        self._is_up = False

    def __enter__(self) -> Self:
        become_reaper()
        signal.signal(signal.SIGINT, self._on_signal)
        signal.signal(signal.SIGTERM, self._on_signal)
        if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # not under nohup
            signal.signal(signal.SIGHUP, self._on_signal)
        self._write_state()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_all()
        self._state.unlink(missing_ok=True)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """One wish may arrive twice: to the process group, and again from make."""
        now = time.monotonic()
        if now - self._asked_at > ECHO_S:
            self._asked_to_stop += 1
        self._asked_at = now

    def add(self, *specs: ServiceSpec) -> None:
        """Start, do not wait. From here on it is restarted when it dies."""
        for spec in specs:
            self._check_stop()
            watched = Watched(self._process(spec))
            self._watched.append(watched)
            self._start(watched, time.monotonic())

    def add_and_wait(self, spec: ServiceSpec) -> None:
        """Start, and wait until it is ready; a death before that is an error."""
        self.add(spec)
        process = self._watched[-1].process
        self.wait(process.is_ready, spec.ready_within_s, spec.name)

    def start_once(self, spec: ServiceSpec) -> Process:
        """Start something that ends by itself."""
        self._check_stop()
        process = self._process(spec).start()
        self._once.append(process)
        return process

    def finish(self, process: Process) -> None:
        """Wait for its end; an exit code other than 0 is an error."""
        self.wait(lambda: not process.is_running(), process.spec.ready_within_s, process.spec.name)
        if process.exit_code != 0:
            process.check_alive()

    def _process(self, spec: ServiceSpec) -> Process:
        return Process(spec, self._logs / f"{spec.name}.log")

    def wait(self, condition: Callable[[], object], within_s: float, what: str) -> None:
        end = time.monotonic() + within_s
        while not condition():
            if time.monotonic() > end:
                raise StackError(f"{what} is not ready after {within_s:g} s. See {self._logs}.")
            self.tick()
            time.sleep(TICK_S / 2)

    def watch(self) -> None:
        """Until a signal comes."""
        self._is_up = True
        while True:
            self.tick()
            time.sleep(TICK_S)

    def tick(self) -> None:
        self._check_stop()
        now = time.monotonic()
        for watched in self._watched:
            self._look_at(watched, now)
        reap_orphans({process.pid for process in self._processes()})
        with suppress(OSError):  # a full disk stops no service
            self._rotate_logs(now)
            self._mirror()

    def _rotate_logs(self, now: float) -> None:
        if now >= self._rotate_at:
            self._rotate_at = now + ROTATE_EVERY_S
            for watched in self._watched:
                rotate_running(watched.process.log)

    def _look_at(self, watched: Watched, now: float) -> None:
        if watched.process.is_running():
            return
        if watched.due_at is None:
            watched.process.kill()  # its orphans, before a successor starts
            self._note_death(watched, now, describe(watched.process.exit_code))
        elif now >= watched.due_at:
            self._start_again(watched, now)

    def _start_again(self, watched: Watched, now: float) -> None:
        try:
            self._start(watched, now)
        except (StackError, OSError) as error:  # no room on the disk, no memory: try again later
            self._note_death(watched, now, str(error))

    def _note_death(self, watched: Watched, now: float, reason: str) -> None:
        name = watched.process.spec.name
        watched.deaths += 1
        if watched.deaths >= HOPELESS_AFTER and not self._is_up:
            watched.process.check_alive()
        if watched.deaths > 1:
            watched.delay_s = next_delay(watched.delay_s, now - watched.started_at)
        watched.due_at = now + watched.delay_s
        self._say(f"{name} ended ({reason}); starting it again in {watched.delay_s:g} s. See {watched.process.log}")
        self._write_state()

    def _start(self, watched: Watched, now: float) -> None:
        watched.started_at, watched.due_at = now, None
        watched.process.start()
        self._write_state()

    def _check_stop(self) -> None:
        if self._asked_to_stop:
            raise Stopped

    def _processes(self) -> list[Process]:
        return [*self._once, *(watched.process for watched in self._watched)]

    def _write_state(self) -> None:
        running = [process for process in self._processes() if process.is_running()]
        entries = [Entry(process.spec.name, process.pid, process.spec.address) for process in running]
        with suppress(OSError):
            write_state(self._state, [Entry(SUPERVISOR, getpid()), *entries])

    def _stop_all(self) -> None:
        longest = max((p.spec.stop_within_s for p in self._processes() if p.is_running()), default=0)
        self._say(f"Stopping; work in progress has up to {longest:g} s. Ctrl-C again hurries.")
        by_stage = sorted(self._processes(), key=lambda process: -process.spec.stage)
        for stage, group in groupby(by_stage, key=lambda process: process.spec.stage):
            # A second signal cuts the work short; only a third one the servers that write data.
            self._stop_together(list(group), hurry_at=3 if stage < STAGE_SERVICES else 2)
            self._write_state()

    def _stop_together(self, processes: list[Process], *, hurry_at: int) -> None:
        for process in processes:
            process.ask_to_stop()
        end = time.monotonic() + max(process.spec.stop_within_s for process in processes)
        while time.monotonic() < end and self._asked_to_stop < hurry_at:
            if not any(process.is_running() for process in processes):
                break
            with suppress(OSError):
                self._mirror()
            time.sleep(TICK_S / 4)
        for process in processes:
            process.kill()


def describe(exit_code: int | None) -> str:
    if exit_code is None or exit_code >= 0:
        return f"exit code {exit_code}"
    return f"killed by {signal.Signals(-exit_code).name}"
