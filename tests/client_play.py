"""The installed command `transcribe` as people run it, with a home of its own, against a service that a test has."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import wave
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tests.conftest import ROOT
from tests.processes import until

COMMAND = Path(sys.executable).parent / "transcribe"
ENGLISH = ROOT / "demo" / "samples" / "english.wav"
Done = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class Person:
    """Somebody at a keyboard: what the command remembers lies in `home`."""

    home: Path
    server: str
    key: str = ""

    @property
    def environment(self) -> dict[str, str]:
        told = {"TRANSCRIBE_SERVER": self.server, "TRANSCRIBE_KEY": self.key}
        return {"PATH": "/usr/bin:/bin", "HOME": str(self.home), "LANG": "C.UTF-8", "TZ": "Europe/Berlin"} | {
            name: value for name, value in told.items() if value
        }

    def at(self, server: str) -> "Person":
        return replace(self, server=server)

    def runs(
        self, *arguments: object, stdin: bytes = b"", environment: Mapping[str, str] = MappingProxyType({})
    ) -> Done:
        done = subprocess.run(
            (COMMAND, *map(str, arguments)),
            env=self.environment | dict(environment),
            cwd=self.home,
            input=stdin,
            capture_output=True,
            timeout=120,
            check=False,
        )
        return Done(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    def starts(self, *arguments: object) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            (COMMAND, *map(str, arguments)),
            env=self.environment,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def interrupted(process: "subprocess.Popen[str]", by: signal.Signals = signal.SIGINT) -> tuple[int, str]:
    """Exit code, and what it said on stderr."""
    process.send_signal(by)
    _, said = process.communicate(timeout=20)
    return process.returncode, said


def seen_in_a_terminal(person: Person, *arguments: object, lines: int = 40, columns: int = 120) -> tuple[int, str]:
    """Exit code, and everything that was written to the terminal."""
    import pty

    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(person.home)
        size = {"LINES": str(lines), "COLUMNS": str(columns), "TERM": "xterm-256color"}
        os.execve(COMMAND, [str(COMMAND), *map(str, arguments)], person.environment | size)  # noqa: S606
    written = bytearray()
    with suppress(OSError):  # Linux: the other end was closed
        while piece := os.read(terminal, 65_536):
            written += piece
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), written.decode()


def left_on_screen(written: str) -> list[str]:
    """The lines that somebody sees when it is over: what was erased is gone."""
    lines, row = [""], 0
    for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", written):
        if part == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif part == "\x1b[1A":
            row -= 1
        elif part == "\x1b[2K":
            lines[row] = ""
        elif not part.startswith(("\x1b", "\r")):
            lines[row] += part
    return [line.strip() for line in lines if line.strip()]


def recording(path: Path, number: int = 0, *, times: int = 1) -> Path:
    """Speech, `times` over; a few samples of silence make each number another recording."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(ENGLISH)) as english, wave.open(str(path), "wb") as out:
        out.setparams(english.getparams())
        out.writeframes(english.readframes(english.getnframes()) * times + bytes(2 * number))
    return path


def hush(path: Path, number: int = 0) -> Path:
    """A tenth of a second of silence, done in no time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16_000)
        out.writeframes(bytes(2 * (1600 + number)))
    return path


@dataclass(slots=True)
class Narrow:
    """A way to the service that lets so many bytes through, and then none."""

    url: str
    passed: int = 0


@contextmanager
def narrow(server: str, *, lets_through: int) -> Iterator[Narrow]:
    port = int(server.rpartition(":")[2])
    with ExitStack() as sockets:
        listening = sockets.enter_context(socket.create_server(("127.0.0.1", 0)))
        way = Narrow(f"http://127.0.0.1:{listening.getsockname()[1]}")

        def up(near: socket.socket, far: socket.socket) -> None:
            with suppress(OSError):
                while way.passed < lets_through and (piece := near.recv(65_536)):
                    far.sendall(piece)
                    way.passed += len(piece)

        def down(near: socket.socket, far: socket.socket) -> None:
            with suppress(OSError):
                while piece := far.recv(65_536):
                    near.sendall(piece)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    near = sockets.enter_context(listening.accept()[0])
                    far = sockets.enter_context(socket.create_connection(("127.0.0.1", port)))
                    for carry in (up, down):
                        threading.Thread(target=carry, args=(near, far), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        sockets.callback(listening.shutdown, socket.SHUT_RDWR)
        yield way


def waits_for(process: "subprocess.Popen[str]", condition: Any, within_s: float = 60) -> None:
    """Until the condition holds while the command still runs."""
    until(lambda: condition() or process.poll() is not None, within_s)
    assert process.poll() is None, process.communicate()[1]
