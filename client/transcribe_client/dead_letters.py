"""transcribe errors: jobs that have failed for good, for operators."""

from typing import Annotated

import typer

from transcribe_client import tables
from transcribe_client.commands import command
from transcribe_client.failures import Misuse
from transcribe_client.listing import Extent, pages
from transcribe_client.session import Session
from transcribe_client.wording import ago, count, full, moment

AT_ONCE = 1000  # the most that the service replays in one request
ErrorId = Annotated[str, typer.Argument(metavar="ERROR", help="Its id, as errors list shows it.")]
ErrorIds = Annotated[list[str] | None, typer.Argument(metavar="[ERROR...]", help="Ids, as errors list shows them.")]
KindOption = Annotated[str | None, typer.Option("--type", "-t", help="Only of this type, such as undecodable_audio.")]


def register(app: typer.Typer) -> None:
    errors = typer.Typer(help="Dead letters: jobs that have failed for good.", no_args_is_help=True)
    error = "9b2d6c1e-52a1-4b0b-8f0e-2f6f1b7c9f10"
    command(errors, "list", examples=("transcribe errors list", "transcribe errors list --type hung --all"))(show_list)
    command(errors, "show", examples=(f"transcribe errors show {error}",))(show)
    command(
        errors,
        "replay",
        examples=(f"transcribe errors replay {error}", "transcribe errors replay --all --type model_download_failed"),
    )(replay)
    command(errors, "resolve", examples=(f"transcribe errors resolve {error}",))(resolve)
    app.add_typer(errors, name="errors")


def show_list(
    session: Session,
    extent: Extent,
    *,
    kind: KindOption = None,
    resolved: Annotated[bool, typer.Option("--resolved", help="Those that are resolved, not the open ones.")] = False,
) -> None:
    """List dead letters, newest first; open ones, unless --resolved is given."""
    found = list(pages(session, "/admin/errors", extent, error_type=kind, resolved=resolved))
    if session.as_json:
        session.put_json(found)
        return
    rows = (
        (one["id"], one["error_type"], one["job_id"], one["message"], ago(moment(one["created_at"]))) for one in found
    )
    tables.put(session.out, ("error", "type", "job", "message", "when"), rows)
    if not found:
        session.say("There is no dead letter.")


def show(session: Session, error: ErrorId) -> None:
    """Show one dead letter, with its job and its stack trace."""
    found = session.api.get(f"/admin/errors/{error}")
    if session.as_json:
        session.put_json(found)
        return
    pairs = [(name, found[name]) for name in ("id", "job_id", "error_type", "message", "attempt", "worker")]
    pairs += [("file", found["job"]["filename"]), ("when", full(moment(found["created_at"])))]
    tables.put_pairs(session.out, [*pairs, ("resolution", found["resolution"])])
    if found["stack_trace"]:
        session.put_text(f"\n{found['stack_trace']}\n")


def replay(
    session: Session,
    errors: ErrorIds = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="All open ones, or those of --type.")] = False,
    kind: KindOption = None,
) -> None:
    """Try jobs again, with every option that they were submitted with."""
    if bool(errors) == every or (errors and kind):
        raise Misuse("Name dead letters, or give --all, with --type if you like.")
    jobs = _replay_all(session, kind) if every else [_replay(session, error) for error in errors or ()]
    if session.as_json:
        session.put_json({"job_ids": jobs})
        return
    session.put_text("".join(f"{job}\n" for job in jobs))
    session.say(f"{count(len(jobs), 'job')} will be tried again.")


def _replay(session: Session, error: str) -> str:
    return str(session.api.post(f"/admin/errors/{error}/replay")["job_id"])


def _replay_all(session: Session, kind: str | None) -> list[str]:
    jobs: list[str] = []
    while True:
        found = session.api.post("/admin/errors/replay", error_type=kind, limit=AT_ONCE)["job_ids"]
        jobs += [job for job in found if job not in jobs]
        if len(found) < AT_ONCE:
            return jobs


def resolve(session: Session, errors: Annotated[list[str], typer.Argument(metavar="ERROR...", help="Ids.")]) -> None:
    """Close dead letters without another try; their jobs stay failed."""
    closed = [session.api.post(f"/admin/errors/{error}/resolve") for error in errors]
    if session.as_json:
        session.put_json(closed)
        return
    for one in closed:
        session.say(f"{one['id']}: {one['resolution']}")
