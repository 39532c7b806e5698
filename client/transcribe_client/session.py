"""What every command is handed: the settings that hold, the way to the service, and how to speak to the person."""

import json
import sys
from dataclasses import dataclass
from functools import cached_property
from threading import Event
from typing import Annotated, Any

import typer
from rich.console import Console

from transcribe_client.api import Api
from transcribe_client.failures import Failure
from transcribe_client.settings import Settings, is_loopback

EVERYWHERE = "Options of every command"


def _everywhere(*names: str, text: str) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=EVERYWHERE, show_default=False)


@dataclass(frozen=True, slots=True)
class Everywhere:
    """Taken before the command and after it."""

    server: Annotated[str | None, _everywhere("--server", text="Address of the service. [TRANSCRIBE_SERVER]")] = None
    key: Annotated[str | None, _everywhere("--key", text="API key. [TRANSCRIBE_KEY]")] = None
    as_json: Annotated[bool, _everywhere("--json", text="JSON on stdout, and nothing else.")] = False
    verbose: Annotated[bool, _everywhere("--verbose", "-v", text="Where something fails, show the traceback.")] = False

    def over(self, other: "Everywhere") -> "Everywhere":
        return Everywhere(
            server=self.server if self.server is not None else other.server,
            key=self.key if self.key is not None else other.key,
            as_json=self.as_json or other.as_json,
            verbose=self.verbose or other.verbose,
        )


class Session:
    def __init__(self, settings: Settings, *, as_json: bool, verbose: bool) -> None:
        self.settings, self.as_json, self.verbose = settings, as_json, verbose
        self.out = Console()
        self.err = Console(stderr=True)

    @cached_property
    def api(self) -> Api:
        return self.open_api()

    def open_api(self, *, patience_s: float = 0, stop: Event | None = None) -> Api:
        server = self.settings.server.value
        if self.settings.key.value and server.startswith("http:") and not is_loopback(server):
            self.say(f"Careful: the key goes unencrypted to {server}. Use https where it leaves your own network.")
        return Api(self.settings, patience_s=patience_s, stop=stop)

    def say(self, text: str) -> None:
        """For people, never on stdout."""
        self.err.print(text, markup=False, highlight=False, soft_wrap=True)

    @property
    def is_interactive(self) -> bool:
        """Whether somebody is there to answer a question."""
        return sys.stdin.isatty() and sys.stderr.isatty()

    def put_text(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    def put_line(self, value: Any) -> None:
        """One of several, as it comes."""
        sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
        sys.stdout.flush()

    def put_json(self, value: Any) -> None:
        """Pretty for people, on one line for programs."""
        indent = 2 if sys.stdout.isatty() else None
        sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=indent) + "\n")


def complain(failure: Failure, about: str = "") -> None:
    """On stderr."""
    typer.secho("error: ", fg="red", bold=True, nl=False, err=True)
    typer.echo(f"{about}: {failure}" if about else str(failure), err=True)
    if failure.hint:
        typer.echo(f"  {failure.hint}", err=True)
