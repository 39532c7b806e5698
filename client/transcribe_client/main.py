"""The program `transcribe`: puts the commands together, and holds the options that come before them."""

from dataclasses import dataclass, fields
from importlib.metadata import version
from inspect import signature
from pathlib import Path
from typing import Annotated

import typer

from transcribe_client import configuration, dead_letters, health, jobs, listing, submit, watch
from transcribe_client.commands import reported, with_options
from transcribe_client.failures import Misuse
from transcribe_client.options import Asked, Delivery
from transcribe_client.session import Everywhere
from transcribe_client.settings import submit_defaults
from transcribe_client.subtitles import Subtitles

HELP = """
Transcribe recordings with a Whisper Queue service.

\b
  $ transcribe submit meeting.mp3 --wait              the transcript, here
  $ transcribe submit recordings/ -o out/ -f srt      a folder of subtitles
  $ transcribe watch ~/Recordings                     what comes in, as it comes
  $ transcribe list --status failed                   what did not work

\b
Exit codes:
  0    all is well
  1    a job has failed, or the service is not well
  2    the command was not understood
  3    the service cannot be reached
  4    the service refused it
  130  interrupted with Ctrl-C; the same command again goes on
"""


@dataclass(frozen=True, slots=True)
class Before:
    """What stands before the command; `context.obj`."""

    everywhere: Everywhere
    config: Path | None


def _show_version(wanted: bool) -> None:  # noqa: FBT001 typer's callback
    if wanted:
        typer.echo(f"transcribe {version('whisper-queue-client')}")
        raise typer.Exit


def root(
    context: typer.Context,
    everywhere: Everywhere,
    *,
    config: Annotated[
        Path | None, typer.Option("--config", help="Configuration file. [TRANSCRIBE_CONFIG]", show_default=False)
    ] = None,
    show_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    context.obj = Before(everywhere, config)
    with reported(verbose=everywhere.verbose):
        defaults = submit_defaults(config)
        known = {one.name for kind in (Asked, Delivery, Subtitles) for one in fields(kind)} - {"formats"} | {"format"}
        if unknown := [name for name in defaults if name not in known]:
            hint = f"Known are {', '.join(sorted(known))}."
            raise Misuse(f"[submit] has an option {unknown[0]!r} that is unknown.", hint=hint)
    context.default_map = {"submit": defaults, "watch": defaults}


app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
for room in (submit, watch, listing, jobs, dead_letters, health, configuration):
    room.register(app)
app.callback(help=HELP)(with_options(root, list(signature(root).parameters.values())))
