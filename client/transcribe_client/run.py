"""Many recordings from the first byte to the last file: threads send, this one follows the jobs and fetches results.

What `submit` and `watch` have in common. Says nothing itself but to the screen; `ended` hears of each recording once.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, Queue
from threading import Thread
from time import monotonic

from transcribe_client.api import FIRST_WAIT_S, LONGEST_WAIT_S, Api, Job
from transcribe_client.failures import Failure, Refused, Stopped, Unreachable
from transcribe_client.following import Follower
from transcribe_client.inputs import Recording
from transcribe_client.outputs import Target, write
from transcribe_client.screen import SHOWN, Row, Screen
from transcribe_client.sending import Sender, Transfer
from transcribe_client.subtitles import Subtitles
from transcribe_client.wording import count, duration, ordinal, plain, size

TICK_S = 0.1
SETTLE_S = 2.0  # Ctrl-C takes no longer
FIRST_LOOK_S, LONGEST_LOOK_S = 0.2, 2.0  # between two looks at the jobs


@dataclass(slots=True, eq=False)
class Item:
    """One recording on its way."""

    recording: Recording
    formats: list[str]
    targets: list[Target]  # files to write; none: the transcripts are kept in `texts`
    number: int = 0
    transfer: Transfer = field(default_factory=Transfer)
    job: Job | None = None
    is_new: bool = True
    failure: Failure | None = None
    texts: dict[str, str] = field(default_factory=dict)

    @property
    def wanted(self) -> list[str]:
        return [name for name, _ in self.targets] or self.formats


@dataclass(slots=True, eq=False)
class Run:
    api: Api
    sender: Sender
    screen: Screen
    ended: Callable[[Item], None]
    subtitles: Subtitles
    waits: bool  # for the jobs, not only until they are accepted
    patience_s: float
    items: int = 0
    finished: int = 0
    failed: int = 0
    _todo: "Queue[Item]" = field(default_factory=Queue)
    _sent: "Queue[Item | BaseException]" = field(default_factory=Queue)
    _sending: dict[int, Item] = field(default_factory=dict)
    _of_job: dict[str, list[Item]] = field(default_factory=dict)
    _follower: Follower = field(init=False)
    _look_s: float = FIRST_LOOK_S
    _look_at: float = 0.0
    _away_since: float | None = None

    def __post_init__(self) -> None:
        self._follower = Follower(Api.like(self.api))

    def start(self, threads: int) -> None:
        """Raises what would refuse every recording, before the first one is read. Ctrl-C waits for no thread."""
        self._follower.api.get("/jobs/", limit=1)
        for _ in range(threads):
            Thread(target=self._send_all, daemon=True).start()

    def add(self, item: Item) -> None:
        item.number = self.items
        self.items += 1
        self._todo.put(item)

    @property
    def is_idle(self) -> bool:
        return self.finished == self.items

    @property
    def on_server(self) -> list[str]:
        """Jobs that go on without us."""
        return list(self._of_job)

    @property
    def unsent(self) -> int:
        return self.items - self.finished - sum(map(len, self._of_job.values()))

    def step(self) -> None:
        """Take what was sent, look at the jobs when it is time. Raises what concerns all recordings."""
        try:
            self._take(self._sent.get(timeout=TICK_S))
            while True:
                self._take(self._sent.get_nowait())
        except Empty:
            pass
        if self._of_job and monotonic() >= self._look_at:
            self._look()
        self.screen.show([*self._uploads(), *self._jobs()], self._whole())

    def settle(self) -> None:
        """After a stop: what is being accepted at this moment counts as sent."""
        end = monotonic() + SETTLE_S
        while self._sending and monotonic() < end:
            with suppress(Empty):
                self._count(self._sent.get(timeout=TICK_S))
        with suppress(Empty):
            while True:
                self._count(self._sent.get_nowait())

    def _count(self, item: Item | BaseException) -> None:
        if isinstance(item, Item) and item.job is not None:
            self._take(item)

    def _send_all(self) -> None:
        while True:
            item = self._todo.get()
            self._sending[item.number] = item
            try:
                sent = self.sender.send(item.recording, item.transfer)
                item.job, item.is_new = sent.job, sent.is_new
            except Failure as failure:
                item.failure = failure
                self._sent.put(item)
            except Stopped:
                return
            except BaseException as error:  # noqa: BLE001 a bug of ours: the main thread shows it
                self._sent.put(error)
                return
            else:
                self._sent.put(item)
            finally:
                self._sending.pop(item.number, None)

    def _take(self, item: Item | BaseException) -> None:
        if isinstance(item, BaseException):
            raise item
        if item.failure is not None:
            if isinstance(item.failure, Unreachable) or (
                isinstance(item.failure, Refused) and item.failure.concerns_everything
            ):
                raise item.failure
            self._end(item)
            return
        assert item.job is not None
        if not self.waits:
            self._end(item)
            return
        if item.is_new and not self.screen.is_live:
            self.screen.say(f"{item.recording.shown}: sent, job {item.job['job_id']}")
        self._of_job.setdefault(item.job["job_id"], []).append(item)
        self._follower.add(item.job)
        self._look_s = FIRST_LOOK_S
        self._look_at = min(self._look_at, monotonic() + FIRST_LOOK_S)

    def _look(self) -> None:
        """While the service is away nothing is lost: it is asked again, at longer and longer intervals."""
        try:
            ended = self._follower.look()
            for job_id in ended:
                self._conclude(job_id)
        except (Unreachable, Refused) as failure:
            if isinstance(failure, Refused) and failure.status != 429:
                raise
            self._note_away(failure)
            return
        self._away_since = None
        self._look_s = FIRST_LOOK_S if ended else min(1.3 * self._look_s, LONGEST_LOOK_S)
        self._look_at = monotonic() + self._look_s

    def _note_away(self, failure: Unreachable | Refused) -> None:
        now = monotonic()
        if self._away_since is None:
            self._away_since, self._look_s = now, FIRST_WAIT_S
            self.screen.say(f"{failure} Asking again …")
        pause_s = self._look_s if failure.retry_after_s is None else failure.retry_after_s
        if now + pause_s - self._away_since > self.patience_s:
            raise failure
        self._look_s = min(2 * self._look_s, LONGEST_WAIT_S)
        self._look_at = now + pause_s

    def _conclude(self, job_id: str) -> None:
        job, items = self._follower.jobs[job_id], self._of_job[job_id]
        if job["status"] == "completed":
            self._fetch(job_id, items)
        for item in items:
            item.job = job
            if job["status"] != "completed":
                item.failure = item.failure or _why(job)
            self._end(item)
        del self._of_job[job_id]
        self._follower.drop(job_id)

    def _fetch(self, job_id: str, items: list[Item]) -> None:
        """Each format once. Raises Unreachable before anything is ended: then it is tried again."""
        formats = {name for item in items for name in item.wanted}
        path = f"/transcribe/{job_id}/result"
        contents = {
            name: self._follower.api.call("GET", path, params=self.subtitles.query(name)).content for name in formats
        }
        for item in items:
            if not item.targets:
                item.texts = {name: contents[name].decode() for name in item.formats}
            try:
                for name, file in item.targets:
                    write(file, contents[name])
            except OSError as error:
                item.failure = Failure(f"{plain(error.filename or '')} cannot be written: {error.strerror}.")

    def _end(self, item: Item) -> None:
        self.finished += 1
        self.failed += item.failure is not None
        self.ended(item)

    def _uploads(self) -> Iterator[Row]:
        for item in list(self._sending.values()):
            transfer = item.transfer
            note = f"{size(transfer.sent)} of {size(transfer.total)}" if transfer.is_sending else "reading"
            yield Row(item.recording.shown, transfer.sent, transfer.total or None, note)

    def _jobs(self) -> Iterator[Row]:
        for job_id in self._follower.foremost(SHOWN):
            job = self._follower.jobs[job_id]
            if items := self._of_job.get(job_id):
                yield Row(items[0].recording.shown, job["progress"], 100, _standing(job))

    def _whole(self) -> Row:
        note = f"{self.finished} of {count(self.items, 'recording')}"
        note += f", {self.failed} failed" if self.failed else ""
        return Row("Altogether", self.finished, self.items or None, note)


def _standing(job: Job) -> str:
    left = f", about {duration(job['eta_seconds'])} left" if job.get("eta_seconds") is not None else ""
    if job["status"] == "processing":
        return f"{job['progress']:.0f} %{left}"
    why = job.get("waiting_for") or {}
    if why.get("code") in ("paused", "scheduled"):
        return plain(why["detail"])
    if position := job.get("queue_position"):
        return f"{ordinal(position)} in the queue{left}"
    return "waiting"


def _why(job: Job) -> Failure:
    if job["status"] == "failed":
        return Failure(plain((job.get("error") or {}).get("message") or "The job has failed."))
    if job["status"] == "cancelled":
        return Failure("The job was cancelled.", hint="The same command again submits it anew.")
    return Failure("The job is gone: somebody has purged it.", hint="The same command again submits it anew.")
