"""transcribe watch: a folder whose new recordings are transcribed as they come, each once, across restarts."""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from pathlib import Path, PurePath
from time import monotonic
from typing import Annotated, Never

import typer

from transcribe_client import inputs, outputs
from transcribe_client.commands import command
from transcribe_client.options import Asked, Delivery
from transcribe_client.reporting import Report, running
from transcribe_client.run import Item, Run
from transcribe_client.screen import opened
from transcribe_client.session import Session
from transcribe_client.subtitles import Subtitles
from transcribe_client.wording import plain, seconds_of

Look = tuple[int, int]  # size, time of the last change


@dataclass(frozen=True, slots=True)
class Pace:
    interval: Annotated[str, typer.Option(metavar="DURATION", help="Between two looks at the folder.")] = "2s"
    settle: Annotated[
        str, typer.Option(metavar="DURATION", help="A file that has not changed for so long is complete.")
    ] = "5s"


def register(app: typer.Typer) -> None:
    examples = (
        "transcribe watch ~/Recordings",
        "transcribe watch /srv/inbox -o /srv/transcripts -f srt -f txt --language de",
        "transcribe watch voicemail/ --interval 10s --settle 30s",
    )
    command(app, "watch", examples=examples)(watch)


def watch(
    session: Session,
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="Looked at with all folders below it.")],
    asked: Asked,
    delivery: Delivery,
    subtitles: Subtitles,
    pace: Pace,
) -> None:
    """Transcribe what comes into a folder, until Ctrl-C.

    A recording is submitted when it has stopped growing; its transcript is written beside it, or below -o. What has a
    transcript is left alone, and what was submitted before is not sent again: stop and start it at any time.
    """
    inbox, interval_s = Inbox(folder, seconds_of(pace.settle)), seconds_of(pace.interval)
    formats = delivery.format_names(session.settings.formats)
    fields = subtitles.with_words(asked.fields(), formats)
    with opened(session.err) as screen:
        report = Report(session, screen, waits=True, in_order=False)
        with running(report, fields, subtitles, waits=True, patience_s=inf, tries_failed_again=False) as run:
            run.start(delivery.parallel)
            screen.say(f"Watching {plain(folder)}. Ctrl-C stops it.")
            _go_on(run, inbox, delivery, formats, interval_s)


def _go_on(run: Run, inbox: "Inbox", delivery: Delivery, formats: list[str], interval_s: float) -> Never:
    look_at = 0.0
    while True:
        if monotonic() >= look_at:
            for recording, place in inbox.complete():
                targets = outputs.targets(delivery.output or inbox.folder, place, formats)
                missing = [one for one in targets if delivery.overwrite or not one[1].exists()]
                if missing:
                    run.add(Item(recording, formats, missing))
            look_at = monotonic() + interval_s
        run.step()


@dataclass(slots=True)
class Inbox:
    folder: Path
    settle_s: float
    clock: Callable[[], float] = monotonic
    _seen: dict[Path, tuple[Look, float]] = field(default_factory=dict)
    _taken: dict[Path, Look] = field(default_factory=dict)

    def complete(self) -> list[tuple[inputs.Recording, PurePath]]:
        """Recordings that have stopped changing and were not told of yet, and where their results go."""
        paths = inputs.media_below(self.folder)
        recordings = [inputs.of_file(path, self.folder) for path in paths]
        places = outputs.places(recordings)
        return [
            (one, place)
            for path, one, place in zip(paths, recordings, places, strict=True)
            if self._is_complete(path, self.clock())
        ]

    def _is_complete(self, path: Path, now: float) -> bool:
        try:
            stat = path.stat()
        except OSError:
            return False  # gone meanwhile
        look = (stat.st_size, stat.st_mtime_ns)
        before, since = self._seen.get(path, (None, now))
        if look != before:
            self._seen[path] = (look, now)
            return False
        if now - since < self.settle_s or not stat.st_size or self._taken.get(path) == look:
            return False
        self._taken[path] = look
        return True
