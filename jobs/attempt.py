"""One attempt: claim -> decode -> split -> transcribe -> save. Nothing escapes: whatever happens becomes a row.

It never touches a queue; it draws a model from the pool for one group of windows at a time.
"""

import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from itertools import count, islice
from math import exp
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

import errors
from audio.ahead import Ahead
from audio.apart import windows_apart
from audio.decode import SAMPLE_RATE, AudioInfo, DecodedAudio, Selection, open_audio
from audio.split import Window, windows
from audio.vad import THRESHOLD
from config import Settings
from database import transaction
from engines import Engine, Model
from jobs import claim as claims
from jobs import read
from jobs.blame import cause_of
from jobs.breaker import Breaker
from jobs.claim import Claim
from jobs.cordons import Watch, ring_again
from jobs.fallback import Fallback
from jobs.fetch import fetch
from jobs.progress import LEAVE_CODE, Fence, Heartbeat, deadline_after_progress
from jobs.read import SegmentText
from jobs.recognition import Recogniser
from jobs.retry import Cause
from jobs.speech_report import SpeechReport
from jobs.states import Status, tell_watchers
from jobs.submit import decode_options
from languages import MULTI
from model_pool import ModelPool
from models import Job, Result, SegmentRow
from storage import Storage
from telemetry import traces
from telemetry.events import emit
from telemetry.logs import log_context
from transcript import Language, Segment

SILENCE_SAVED_EVERY_S = 2.0
OUTAGE_S = 600.0  # a child whose job waits for the database can do nothing else: this long it tries to give it back
LONG_S = 60.0  # a recording that lasts so long is heard at several places where its language is in doubt


@dataclass(frozen=True, slots=True)
class Workplace:
    """What a worker child has at hand for every attempt."""

    settings: Settings
    storage: Storage
    pool: ModelPool[Model]
    engine: Engine
    name: str  # host:main pid:child pid
    is_draining: Callable[[], bool]
    breaker: Breaker
    cordon: Watch


def run(job_id: uuid.UUID, work: Workplace) -> None:
    """Transcribe one job, whatever it takes. A doorbell for a job that is not there to take is a no-op.

    A child that turned out to be ill rests before it returns: until then Celery gives it no other job.
    """
    if work.cordon.found is not None:
        _leave_to_others(job_id, work)
        return
    try:
        claimed = claims.claim(job_id, claimed_by=work.name, settings=work.settings)
    except errors.Unavailable:
        emit("claim.unavailable", job_id=str(job_id))  # the relay rings again
        return
    if claimed is None:
        emit("claim.skipped", job_id=str(job_id))
        return
    job = claimed.job
    with (
        log_context(job_id=str(job_id), request_id=job.request_id),
        traces.span("transcribe", job.traceparent, kind="consumer", job_id=str(job_id), attempt=job.attempt),
    ):
        _attempt(claimed, work)
    work.breaker.rest()


def _leave_to_others(job_id: uuid.UUID, work: Workplace) -> None:
    """The worker is cordoned: the job is rung for others, and this child draws none until it is over."""
    emit("claim.cordoned", job_id=str(job_id))
    with suppress(errors.Unavailable), transaction() as session:
        ring_again(session, job_id)
    work.cordon.rest(work.is_draining)


def _attempt(claimed: Claim, work: Workplace) -> None:
    started = monotonic()
    fence = claimed.fence
    emit("attempt.started", attempt=fence.attempt, model=claimed.job.model_size)
    try:
        with _heartbeat(fence, work) as beat:
            attempt = _Attempt(claimed, work, beat)
            verb = "completed" if attempt.transcribe() else "fenced"
        work.breaker.note_work()
        seconds, audio_s = monotonic() - started, attempt.audio_s
        factor = round(seconds / audio_s, 4) if audio_s else None
        emit(f"attempt.{verb}", attempt=fence.attempt, seconds=round(seconds, 3), audio_s=audio_s, factor=factor)
    except errors.Cancelled as reason:
        emit("attempt.stopped", attempt=fence.attempt, reason=reason.code)
    except (errors.Draining, SystemExit, KeyboardInterrupt):
        _give_back(fence, "drained", patience_s=work.settings.lease_seconds)
    except (errors.LeaseLost, errors.Unavailable) as reason:  # the database was away, or somebody took the job
        _give_back(fence, reason.code, patience_s=OUTAGE_S, delay_s=errors.Unavailable.retry_after_s)
    except BaseException as error:  # noqa: BLE001 a MemoryError that reaches Celery kills the whole worker (celery#10462)
        _record_failure(fence, error, work)


def _give_back(fence: Fence, reason: str, *, patience_s: float, delay_s: float = 0) -> None:
    released = claims.release(fence, reason=reason, patience_s=patience_s, delay_s=delay_s)
    emit("attempt.released" if released else "attempt.stopped", attempt=fence.attempt, reason=reason)


def _record_failure(fence: Fence, error: BaseException, work: Workplace) -> None:
    cause, reason = cause_of(error), claims.describe(error)
    written = claims.fail(fence, error, work.settings, cause=cause, worker=work.name)
    code = reason.code
    emit("attempt.failed", attempt=fence.attempt, code=code, cause=cause, written=written, exc_info=error)
    if cause is Cause.WORKER:
        work.breaker.note_fault(code, reason.message)
    else:
        work.breaker.note_work()
    if isinstance(error, errors.EngineBroken) or isinstance(error.__cause__, errors.EngineBroken):
        os._exit(LEAVE_CODE)  # the device is in an unknown state; a new child starts with a clean one


def _heartbeat(fence: Fence, work: Workplace) -> Heartbeat:
    def on_overdue() -> None:
        error = errors.DeadlinePassed("The attempt took longer than its deadline and was ended.")
        claims.fail(fence, error, work.settings, cause=Cause.LOSS, worker=work.name)

    return Heartbeat(
        fence,
        lease_s=work.settings.lease_seconds,
        is_draining=lambda: work.is_draining() or work.cordon.drains,
        on_overdue=on_overdue,
        waited_s=lambda: work.engine.waited_seconds,
    )


class _Attempt:
    """The state of one attempt between its checkpoints."""

    def __init__(self, claimed: Claim, work: Workplace, beat: Heartbeat) -> None:
        job = claimed.job
        self._job = job
        self._fence = claimed.fence
        self._work = work
        self._beat = beat
        self._started = self._saved_at = monotonic()
        self._options = decode_options(job)
        self._position_s = job.position_s
        self._is_saved = True  # the position, and what was counted up to it
        self._decoded_s = job.position_s
        self._path = Path()
        self._repair = False  # whether to pass over what cannot be decoded
        self._duration_s: float | None = None
        said = _said_so_far(job)
        self._count = len(said)
        self._report = SpeechReport.of(job.audio or {}) if job.position_s else SpeechReport()
        self._audio = job.audio or {}
        self._warnings: list[dict[str, Any]] = []  # of the decoder
        work.engine.begin(urgent=job.priority == "high")
        batch = work.settings.batch_size or work.engine.default_batch()  # windows an engine call, to begin with
        self._fallback = Fallback(work.pool, job.model_size, compute_type=work.settings.compute_type, batch=batch)
        self._recogniser = Recogniser(
            self._fallback, self._options, language=_language_so_far(job), said=said, elsewhere=self._elsewhere
        )

    @property
    def audio_s(self) -> float:
        """What this attempt has worked on; an earlier one may have begun."""
        return round(self._decoded_s - self._job.position_s, 3)

    def transcribe(self) -> bool:
        """False: the job was taken away or cancelled meanwhile, and nothing was written."""
        with traces.span("fetch"):
            key = fetch(self._job, self._work.storage, self._work.settings, check=self._beat.check, write=self._write)
        with self._work.storage.local_path(key) as self._path:
            try:
                self._read()
            except errors.UndecodableAudio as reason:
                emit("audio.repaired", reason=str(reason), position_s=self._position_s)
                self._repair = True
                self._read()
        if not self._is_saved:
            self._write(position_s=self._position_s, audio=self._audio | self._report.as_json())
        return claims.finish(self._fence, self._result(), patience_s=self._work.settings.lease_seconds)

    def _open(self, start_s: float, *, separate: bool) -> AbstractContextManager[DecodedAudio]:
        language = None if self._options.language == MULTI else self._options.language
        take = Selection(track=self._options.audio_track, language=language, separate=separate)
        return open_audio(self._path, start_s=start_s, repair=self._repair, take=take)

    def _read(self) -> None:
        with self._open(self._position_s, separate=self._options.channels == "separate") as audio:
            self._note(audio.info)
            self._decoded_s = self._position_s
            stream = self._windows(audio)
            with Ahead(stream, room=2 * self._fallback.rung.batch, interrupt=audio.interrupt) as ready:
                while taken := ready.take(self._fallback.rung.batch):
                    self._beat.check()
                    group = [window for together in taken for window in together]
                    self._save(group, self._recognise([window for window in group if len(window.audio)]))

    def _windows(self, audio: DecodedAudio) -> Iterator[tuple[Window, ...]]:
        """What comes together ends at one position: it is saved in one transaction."""
        threshold = THRESHOLD if self._options.vad_threshold is None else self._options.vad_threshold
        blocks, vad = self._blocks(audio), self._options.vad_filter
        if audio.info.apart is None:
            found = windows(blocks, vad=vad, start_s=self._position_s, threshold=threshold)
            return ((window,) for window in found)
        return windows_apart(blocks, vad=vad, start_s=self._position_s, threshold=threshold)

    def _elsewhere(self) -> Iterator[NDArray[np.float32]]:
        """Speech from a quarter, the half and three quarters of a recording, where its headers say how long it is."""
        if self._duration_s is None or self._duration_s < LONG_S:
            return
        for share in (0.25, 0.5, 0.75):
            with suppress(errors.MediaError), self._open(share * self._duration_s, separate=False) as audio:
                found = windows(audio.blocks(), vad=True)
                yield from islice((window.audio for window in found if len(window.audio)), 1)

    def _blocks(self, audio: DecodedAudio) -> Iterator[NDArray[np.float32]]:
        for block in audio.blocks():
            self._beat.check()
            self._decoded_s += len(block) / SAMPLE_RATE
            yield block

    def _note(self, info: AudioInfo) -> None:
        """Keep what the probe found, and give the attempt the time that so much audio may take."""
        self._duration_s = info.duration
        seconds = self._work.settings.deadline_base_seconds + self._work.settings.deadline_factor * (info.duration or 0)
        self._audio = info.as_json()
        self._warnings = info.warnings
        self._write(audio=self._audio | self._report.as_json(), deadline_at=func.now() + timedelta(seconds=seconds))

    def _recognise(self, group: list[Window]) -> list[Segment]:
        """Segments of a group of windows, in seconds of the recording. May go on with a smaller model: `model_used`."""
        if not group:
            return []
        with traces.span("recognise", windows=len(group), position_s=group[0].start_s):
            segments = self._recogniser.recognise(group)
        if group[0].channel is not None:
            segments.sort(key=lambda segment: segment.start)
        return segments

    def _save(self, group: list[Window], segments: list[Segment]) -> None:
        """A checkpoint: segments and position in one fenced transaction; the next attempt goes on from here."""
        self._position_s = group[-1].position_s
        self._report.add(group)
        self._is_saved = bool(segments) or monotonic() - self._saved_at >= SILENCE_SAVED_EVERY_S
        if not self._is_saved:
            return
        self._saved_at = monotonic()
        rows = [_row(self._fence.job_id, number, s) for number, s in enumerate(segments, start=self._count)]
        language = self._recogniser.language
        self._write(
            rows,
            position_s=self._position_s,
            progress=self._percent(),
            detected_language=language.code if language else None,
            language_probability=language.probability if language else None,
            model_used=self._fallback.rung.size,
            stalled_at=None,
            audio=self._audio | self._report.as_json(),
            deadline_at=deadline_after_progress(self._work.settings),
        )
        self._count += len(rows)

    def _percent(self) -> float:
        """Never 100 before the end: headers lie about the duration."""
        if not self._duration_s:
            return 0.0
        return round(min(99.0, 100 * self._position_s / self._duration_s), 2)

    def _write(self, rows: list[dict[str, Any]] | None = None, **values: Any) -> None:
        """Raises LeaseLost where the attempt is not ours any more; then nothing is written."""
        ours = (Job.id == self._fence.job_id, Job.attempt == self._fence.attempt, Job.status == Status.PROCESSING)
        tries = count()

        def write(session: Session) -> bool:
            is_again = next(tries) > 0  # the COMMIT before is in doubt: it may have written the rows
            is_ours = session.scalar(update(Job).where(*ours).values(**values).returning(Job.id)) is not None
            if is_ours and rows:
                _insert(session, rows, is_again=is_again)
            if is_ours:
                tell_watchers(session, self._fence.job_id)
            return is_ours

        written, _ = claims.patiently(write, self._work.settings.lease_seconds)
        if not written:
            raise errors.LeaseLost("The job is no longer this attempt's.")

    def _result(self) -> Result:
        with transaction() as session:
            rows = read.segment_texts(session, self._fence.job_id)
        text = "".join(row.text for row in rows).strip()
        language = self._recogniser.language if rows else None
        return Result(
            job_id=self._fence.job_id,
            attempt=self._fence.attempt,
            text=text,
            language=language.code if language else None,
            language_probability=language.probability if language else None,
            duration=round(self._decoded_s, 3),
            word_count=len(text.split()),
            confidence=_confidence(rows),
            warnings=self._warnings + self._recogniser.warnings() + self._report.warnings(has_text=bool(text)),
            processing_s=round(monotonic() - self._started, 3),
            model_revision=self._recogniser.revision,
        )


def _said_so_far(job: Job) -> list[SegmentText]:
    """What earlier attempts have transcribed."""
    if not job.position_s:
        return []
    with transaction() as session:
        return read.segment_texts(session, job.id)


def _insert(session: Session, rows: list[dict[str, Any]], *, is_again: bool) -> None:
    """A segment that is there already is ours, from a COMMIT in doubt; else it is a bug. No text goes in silence."""
    statement = insert(SegmentRow).on_conflict_do_nothing().returning(SegmentRow.number)
    written = session.scalars(statement, rows).all()
    if len(written) != len(rows) and not is_again:
        raise RuntimeError("Segments with these numbers are there already. This is a bug.")


def _row(job_id: uuid.UUID, number: int, segment: Segment) -> dict[str, Any]:
    row = asdict(segment)
    words = None if segment.words is None else [asdict(word) for word in segment.words]
    return {**row, "job_id": job_id, "number": number, "tokens": list(segment.tokens), "words": words}


def _language_so_far(job: Job) -> Language | None:
    """As the caller named it, or as an earlier attempt detected it."""
    if job.language not in (None, MULTI):
        return Language(job.language, 1.0)
    if job.detected_language is not None:
        return Language(job.detected_language, job.language_probability)
    return None


def _confidence(rows: Sequence[SegmentText]) -> float | None:
    """Mean token probability, weighted by the length of each segment."""
    weight = sum(row.end - row.start for row in rows)
    if not weight:
        return None
    return round(sum(exp(min(0.0, row.avg_logprob)) * (row.end - row.start) for row in rows) / weight, 4)
