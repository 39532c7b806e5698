"""transcribe status, cancel, result: one job or a few, by their ids."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from transcribe_client import tables
from transcribe_client.api import Job
from transcribe_client.commands import command
from transcribe_client.failures import Failure, Misuse, Refused, worst
from transcribe_client.ledger import Ledger
from transcribe_client.options import Format
from transcribe_client.outputs import write
from transcribe_client.session import Session, complain
from transcribe_client.settings import state_file
from transcribe_client.subtitles import Subtitles
from transcribe_client.wording import duration, full, moment, ordinal, plain

COMPLETED = 20  # job ids that the shell offers


def known_ids(incomplete: str) -> Iterator[tuple[str, str]]:
    """For the shell: the last jobs of this machine."""
    with suppress(OSError):
        last = Ledger(state_file()).last(COMPLETED)
        yield from ((job_id, plain(name)) for job_id, name in last if job_id.startswith(incomplete))


JobIds = Annotated[
    list[str], typer.Argument(metavar="JOB...", help="Ids, as submit printed them.", autocompletion=known_ids)
]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="Its id, as submit printed it.", autocompletion=known_ids)]


def register(app: typer.Typer) -> None:
    job = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff"
    command(app, "status", examples=(f"transcribe status {job}", f"transcribe status {job} --json"))(status)
    command(app, "cancel", examples=(f"transcribe cancel {job}", f"transcribe cancel {job} --purge --yes"))(cancel)
    command(
        app,
        "result",
        examples=(
            f"transcribe result {job}",
            f"transcribe result {job} -f srt -o meeting.srt",
            f"transcribe result {job} -f vtt --word-level",
        ),
    )(result)


def status(session: Session, jobs: JobIds) -> None:
    """Show everything that is known about jobs: status, progress, place in the queue, times, errors."""
    found = _each(jobs, lambda job_id: session.api.get(f"/transcribe/{job_id}"))
    if session.as_json:
        session.put_json([job for job, _ in found if job is not None])
    else:
        for number, job in enumerate(job for job, _ in found if job is not None):
            if number:
                session.out.print()
            tables.put_pairs(session.out, _details(job))
    _exit(failure for _, failure in found)


def _details(job: Job) -> Iterator[tuple[str, object]]:
    yield "job", job["job_id"]
    yield "file", job["filename"]
    yield "status", job["status"]
    yield "error", (job.get("error") or {}).get("message")
    if job["status"] in ("pending", "processing"):
        position, eta_s = job.get("queue_position"), job.get("eta_seconds")
        yield "progress", f"{job['progress']:.0f} %"
        why = job.get("waiting_for") or {}
        yield "waits", None if why.get("code", "queued") == "queued" else why["detail"]
        yield "queue", None if position is None else ordinal(position)
        yield "left", None if eta_s is None else f"about {duration(eta_s)}"
    yield "model", job["model_used"] or job["model_size"]
    yield "language", job["language"]
    yield "length", length_of(job)
    yield "attempt", f"{job['attempt']} of {job['max_attempts']}" if job["attempt"] > 1 else None
    yield "metadata", job["metadata"] or None
    for name in ("created", "started", "completed"):
        yield name, None if job[f"{name}_at"] is None else full(moment(job[f"{name}_at"]))
    yield "deleted", None if job["delete_at"] is None else full(moment(job["delete_at"]))
    if result := job.get("result"):
        yield "words", result["word_count"]


def length_of(job: Job) -> str | None:
    length_s = (job.get("audio") or {}).get("duration")
    return None if length_s is None else duration(length_s)


def cancel(
    session: Session,
    jobs: JobIds,
    *,
    purge: Annotated[bool, typer.Option("--purge", help="Delete audio, text and job, too.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before a purge.")] = False,
) -> None:
    """Cancel jobs that are waiting or running; with --purge delete jobs, with all that is known of them."""
    if purge and not yes and session.is_interactive:
        typer.confirm(f"Delete {len(jobs)} of jobs, audio and text, for ever?", abort=True, err=True)
    done = _each(jobs, lambda job_id: _purge(session, job_id) if purge else _cancel(session, job_id))
    told = [answer for answer, _ in done if answer is not None]
    if session.as_json:
        session.put_json(told)
    else:
        for answer in told:
            session.say(f"{answer['job_id']}: {answer['status']}")
    _exit(failure for _, failure in done)


def _cancel(session: Session, job_id: str) -> Job:
    answer: Job = session.api.call("DELETE", f"/transcribe/{job_id}").json()
    return answer


def _purge(session: Session, job_id: str) -> Job:
    """One that is not final is cancelled first."""
    try:
        session.api.call("DELETE", f"/transcribe/{job_id}", params={"purge": True})
    except Refused as failure:
        if failure.status != 409:
            raise
        _cancel(session, job_id)
        session.api.call("DELETE", f"/transcribe/{job_id}", params={"purge": True})
    return {"job_id": job_id, "status": "purged"}


def result(
    session: Session,
    job: JobId,
    subtitles: Subtitles,
    *,
    wanted: Annotated[Format, typer.Option("--format", "-f", help="Of the transcript.")] = Format.TXT,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", dir_okay=False, help="Default: stdout.")
    ] = None,
) -> None:
    """Get the transcript of a job that is completed."""
    wanted = Format.JSON if session.as_json else wanted
    content = session.api.call(
        "GET", f"/transcribe/{job}/result", params=subtitles.given() | {"format": wanted.value}
    ).content
    if output is None or str(output) == "-":
        text = content.decode()
        session.put_text(text if text.endswith("\n") or not text else f"{text}\n")
        return
    try:
        write(output, content)
    except OSError as error:
        raise Failure(f"{output} cannot be written: {error.strerror}.") from None
    session.say(f"Written to {output}.")


def _each(jobs: Sequence[str], ask: Callable[[str], Job]) -> list[tuple[Job | None, Failure | None]]:
    """What is said of each one; one that is unknown does not keep us from the others. Raises Unreachable."""
    answers: list[tuple[Job | None, Failure | None]] = []
    for job_id in dict.fromkeys(jobs):
        _check_id(job_id)
        try:
            answers.append((ask(job_id), None))
        except Refused as failure:
            complain(failure, job_id)
            answers.append((None, failure))
    return answers


def _check_id(job_id: str) -> None:
    """It becomes part of an address."""
    if not job_id.replace("-", "").isalnum():
        raise Misuse(f"{plain(job_id)!r} is not the id of a job.", hint="`transcribe list` shows them.")


def _exit(failures: Iterator[Failure | None]) -> None:
    if code := worst(failure.exit_code for failure in failures if failure is not None):
        raise typer.Exit(code)
