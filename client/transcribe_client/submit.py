"""transcribe submit: recordings become jobs, and with --wait transcripts."""

import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Annotated
from uuid import uuid4

import typer

from transcribe_client import inputs, outputs
from transcribe_client.commands import command
from transcribe_client.failures import Misuse
from transcribe_client.options import RESULTS, Asked, Delivery
from transcribe_client.reporting import Report, running
from transcribe_client.run import Item, Run
from transcribe_client.screen import opened
from transcribe_client.session import Session
from transcribe_client.subtitles import Subtitles
from transcribe_client.wording import plain, seconds_of


@dataclass(frozen=True, slots=True)
class Manner:
    wait: Annotated[
        bool, typer.Option("--wait", "-w", rich_help_panel=RESULTS, help="Until all is done. -f and -o imply it.")
    ] = False
    name: Annotated[str | None, typer.Option(help="What standard input is called; its ending helps.")] = None
    again: Annotated[bool, typer.Option("--again", help="New jobs, also for what was submitted before.")] = False
    retry_for: Annotated[
        str, typer.Option(metavar="DURATION", help="How long to go on while the service is away or too busy.")
    ] = "5m"


def register(app: typer.Typer) -> None:
    examples = (
        "transcribe submit meeting.mp3",
        "transcribe submit meeting.mp3 --wait > meeting.txt",
        "transcribe submit recordings/ -o transcripts/ -f srt -f txt",
        "transcribe submit film.mkv -f srt --max-line-width 42 --max-line-count 2",
        "transcribe submit 'talks/**/*.m4a' --language en --model-size small -o out/",
        "transcribe submit https://example.com/talk.mp3 --wait",
        "ffmpeg -i film.mkv -f wav - | transcribe submit - --name film.wav -f srt",
    )
    command(app, "submit", examples=examples)(submit)


def submit(
    session: Session,
    what: Annotated[
        list[str], typer.Argument(metavar="WHAT...", help="Files, folders, globs in quotes, URLs, or - for stdin.")
    ],
    asked: Asked,
    delivery: Delivery,
    subtitles: Subtitles,
    manner: Manner,
) -> None:
    """Submit recordings; with --wait, transcribe them.

    The same command again goes on where it was: nothing is sent twice, not even after Ctrl-C, a crash or a restart.
    Without --wait the ids of the jobs are printed.
    """
    formats, patience_s = delivery.format_names(session.settings.formats), seconds_of(manner.retry_for)
    fields = subtitles.with_words(asked.fields(), formats)
    waits = manner.wait or delivery.output is not None or bool(delivery.formats)
    with _copied_stdin(what, manner.name) as stdin:
        recordings = inputs.found(what, stdin=stdin, stdin_name=plain(manner.name or "recording"))
        items = _items(recordings, delivery.output, formats)
        salt = uuid4().hex if manner.again else ""
        has_headings = len(items) * len(formats) > 1
        with opened(session.err) as screen:
            report = Report(session, screen, waits=waits, has_headings=has_headings)
            with running(report, fields, subtitles, waits=waits, patience_s=patience_s, salt=salt) as run:
                _transcribe(run, report, items, delivery)
    raise typer.Exit(report.exit_code)


def _items(recordings: Sequence[inputs.Recording], folder: Path | None, formats: list[str]) -> list[Item]:
    def targets(place: PurePath) -> list[outputs.Target]:
        return [] if folder is None else outputs.targets(folder, place, formats)

    places = outputs.places(recordings)
    return [Item(one, formats, targets(place)) for one, place in zip(recordings, places, strict=True)]


def _transcribe(run: Run, report: Report, items: Sequence[Item], delivery: Delivery) -> None:
    todo = [item for item in items if _is_wanted(item, report, overwrite=delivery.overwrite)]
    if todo:
        run.start(delivery.parallel)
    for item in todo:
        run.add(item)
    while not run.is_idle:
        run.step()


def _is_wanted(item: Item, report: Report, *, overwrite: bool) -> bool:
    """What is written is not asked for again."""
    if overwrite or not item.targets:
        return True
    missing = [target for target in item.targets if not target[1].exists()]
    if not missing:
        report.skipped(item)
    item.targets = missing or item.targets
    return bool(missing)


@contextmanager
def _copied_stdin(what: Sequence[str], name: str | None) -> Iterator[Path | None]:
    """Into a file, because it may have to be sent more than once."""
    if inputs.STDIN not in what:
        if name is not None:
            raise Misuse("--name is for standard input.", hint="Give - as what to submit.")
        yield None
        return
    with tempfile.NamedTemporaryFile(prefix="transcribe-") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
        file.flush()
        yield Path(file.name)
