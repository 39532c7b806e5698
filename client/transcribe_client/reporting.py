"""What submit and watch say of each recording: results on stdout, in the order of the inputs, the rest on stderr."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from threading import Event
from typing import Any

from transcribe_client.failures import Unreachable, worst
from transcribe_client.ledger import Ledger
from transcribe_client.run import Item, Run
from transcribe_client.screen import Screen
from transcribe_client.sending import Sender
from transcribe_client.session import Session
from transcribe_client.settings import state_file
from transcribe_client.subtitles import Subtitles
from transcribe_client.wording import count, plain


@dataclass(slots=True, eq=False)
class Report:
    session: Session
    screen: Screen
    waits: bool
    has_headings: bool = False  # several transcripts follow each other on stdout
    in_order: bool = True
    codes: set[int] = field(default_factory=set)
    tally: Counter[str] = field(default_factory=Counter)
    _held: dict[int, Item] = field(default_factory=dict)
    _next: int = 0

    def ended(self, item: Item) -> None:
        self._tell(item)
        self._held[item.number] = item
        while self._next in self._held or (self._held and not self.in_order):
            self._put(self._held.pop(self._next if self.in_order else next(iter(self._held))))
            self._next += 1

    def skipped(self, item: Item) -> None:
        self.tally["skipped"] += 1
        if not self.screen.is_live:
            self.screen.say(f"{item.recording.shown}: skipped, {_files(item)} is there")

    @property
    def exit_code(self) -> int:
        return worst(self.codes)

    def close(self, goodbye: str) -> None:
        """What is held back, the whole in one line, and a last word."""
        for number in sorted(self._held):
            self._put(self._held.pop(number))
        total = sum(self.tally.values())
        if total > 1 or (total and self.screen.is_live):
            self.screen.say(", ".join(f"{number} {what}" for what, number in sorted(self.tally.items())))
        if goodbye:
            self.screen.say(goodbye)

    def _tell(self, item: Item) -> None:
        if item.failure is not None:
            self.tally["failed"] += 1
            self.codes.add(item.failure.exit_code)
            job = f" (job {item.job['job_id']})" if item.job else ""
            hint = f"\n  {item.failure.hint}" if item.failure.hint else ""
            self.screen.say(f"error: {item.recording.shown}: {item.failure}{job}{hint}")
            return
        self.tally["transcribed" if self.waits else "submitted" if item.is_new else "submitted before"] += 1
        if self.screen.is_live:
            return
        if item.targets:
            self.screen.say(f"{item.recording.shown}: completed, {_files(item)}")
        elif not self.waits:
            assert item.job is not None
            self.screen.say(f"{item.recording.shown}: {'sent' if item.is_new else 'was sent before'}")

    def _put(self, item: Item) -> None:
        if self.session.as_json:
            self.session.put_line(_as_json(item))
        elif item.failure is None and not self.waits:
            assert item.job is not None
            self.screen.put(f"{item.job['job_id']}\n")
        elif item.failure is None and item.texts:
            for name, text in item.texts.items():
                heading = f"==> {item.recording.shown} ({name}) <==\n" if self.has_headings else ""
                self.screen.put(heading + _ended_with_a_newline(text))


def _files(item: Item) -> str:
    return ", ".join(plain(file) for _, file in item.targets)


def _as_json(item: Item) -> dict[str, Any]:
    job, failure = item.job or {}, item.failure
    return {
        "input": item.recording.shown,
        "job_id": job.get("job_id"),
        "status": job.get("status"),
        "is_new": item.is_new,
        "files": [plain(file) for _, file in item.targets] if failure is None else [],
        "transcripts": item.texts,
        "error": None if failure is None else str(failure),
    }


def _ended_with_a_newline(text: str) -> str:
    return text if text.endswith("\n") or not text else f"{text}\n"


@contextmanager
def running(
    report: Report, fields: dict[str, str], subtitles: Subtitles, *, waits: bool, patience_s: float, **sending: Any
) -> Iterator[Run]:
    """A Run whose threads end with it. Left in the middle, it says what goes on without it."""
    stop, ledger, screen = Event(), Ledger(state_file()), report.screen
    ledger.load()
    with closing(report.session.open_api(patience_s=patience_s, stop=stop)) as api:
        sender = Sender(api, ledger, fields, stop, **sending)
        run = Run(api, sender, screen, report.ended, subtitles, waits=waits, patience_s=patience_s)
        goodbye = ""
        try:
            yield run
        except (KeyboardInterrupt, Unreachable):
            stop.set()
            run.settle()
            goodbye = left_behind(run.on_server, run.unsent)
            raise
        finally:
            stop.set()
            report.close(goodbye)


def left_behind(job_ids: Sequence[str], unsent: int) -> str:
    """After Ctrl-C: what goes on, and how to come back."""
    parts = []
    if job_ids:
        parts.append(
            f"{count(len(job_ids), 'job')} on the server {'goes' if len(job_ids) == 1 else 'go'} on without you."
        )
    if unsent:
        parts.append(f"{count(unsent, 'recording')} {'was' if unsent == 1 else 'were'} not sent.")
    look = f", or `transcribe status {job_ids[0]}`" if job_ids else ""
    parts.append(f"To come back: the same command again, which sends nothing twice{look}.")
    return " ".join(parts)
