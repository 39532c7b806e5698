"""Transcripts as files: one, or those of a batch in a zip that is made while it is sent."""

import json
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import RawIOBase
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import quote
from uuid import UUID

from fastapi import Query

from api.present import corrected, result_out
from api.schemas import ResultOut
from api.subtitles import Subtitles
from database import transaction
from formats import FORMATS, render
from jobs import read

FormatName = Literal["json", "txt", "srt", "vtt", "tsv", "lrc"]
Corrected = Annotated[
    bool,
    Query(
        alias="corrected",
        description="With the corrections of people. Default: as the machine heard it.",
    ),
]


@dataclass(frozen=True, slots=True)
class Manner:
    """How a transcript is written, in whatever format."""

    subtitles: Subtitles
    as_corrected: Corrected = False


class File(NamedTuple):
    media_type: str
    suffix: str
    content: str


def rendered(result: ResultOut, name: FormatName, manner: Manner) -> File:
    if manner.as_corrected:
        result = corrected(result)
    if name == "json":
        return File("application/json", ".json", result.model_dump_json(exclude_none=False))
    media_type, suffix, _ = FORMATS[name]
    return File(media_type, suffix, render(name, result.segments, manner.subtitles))


def stem(filename: str) -> str:
    return filename.rpartition(".")[0] or filename


def disposition(filename: str) -> str:
    """RFC 6266: a plain name for old clients, the true one percent-encoded."""
    plain = "".join(c if c.isascii() and c.isprintable() and c not in '"\\%' else "_" for c in filename)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"


def archive(job_ids: Sequence[UUID], formats: Sequence[FormatName], manner: Manner) -> Iterator[bytes]:
    """A zip with the transcripts of these jobs, and index.json, which also tells of those that have none.

    One job at a time is read, so that a batch of any size takes little memory; an error breaks the stream off.
    """
    pipe, names, index = _Pipe(), _Names(), []
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archived:
        for job_id in job_ids:
            entry, files = _of_job(job_id, formats, manner, names)
            index.append(entry)
            for name, content in files:
                archived.writestr(name, content)
            yield pipe.taken()
        archived.writestr("index.json", json.dumps(index, indent=1, ensure_ascii=False))
    yield pipe.taken()


def _of_job(
    job_id: UUID, formats: Iterable[FormatName], manner: Manner, names: "_Names"
) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """What the index says, and the files as (name, content)."""
    with transaction() as session:
        job = read.get_job(session, job_id)
        result = result_out(session, job)
    files = [] if result is None else [rendered(result, name, manner) for name in formats]
    base = names.unique(stem(job.filename))
    named = [(f"{base}{file.suffix}", file.content) for file in files]
    entry = {
        "job_id": str(job.id),
        "filename": job.filename,
        "status": job.status,
        "error": job.error_message,
        "files": [name for name, _ in named],
    }
    return entry, named


class _Names:
    """Two recordings may be called the same."""

    def __init__(self) -> None:
        self._used = {"index"}

    def unique(self, name: str) -> str:
        number, wanted = 1, name
        while wanted.lower() in self._used:
            number += 1
            wanted = f"{name} ({number})"
        self._used.add(wanted.lower())
        return wanted


class _Pipe(RawIOBase):
    """What was written since it was last taken; zipfile sees that it cannot go back, and writes accordingly."""

    def __init__(self) -> None:
        self._written = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._written += data
        return len(data)

    def taken(self) -> bytes:
        taken = bytes(self._written)
        self._written.clear()
        return taken
