"""The options of submit and watch: what the service is asked for, and what becomes of its answer."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from transcribe_client.failures import Misuse
from transcribe_client.wording import seconds_of

ASKED, RESULTS = "What is asked for", "Results"


class Task(StrEnum):
    TRANSCRIBE = "transcribe"
    TRANSLATE = "translate"


class Priority(StrEnum):
    HIGH = "high"
    NORMAL = "normal"


class Channels(StrEnum):
    MIX = "mix"
    SEPARATE = "separate"


class Format(StrEnum):
    TXT = "txt"
    SRT = "srt"
    VTT = "vtt"
    TSV = "tsv"
    LRC = "lrc"
    JSON = "json"


def _asked(*names: str, **more: Any) -> Any:
    return typer.Option(*names, rich_help_panel=ASKED, show_default=False, **more)


def _result(*names: str, **more: Any) -> Any:
    return typer.Option(*names, rich_help_panel=RESULTS, **more)


@dataclass(frozen=True, slots=True)
class Asked:
    """What is not given is left to the service."""

    model_size: Annotated[str | None, _asked(help="Whisper model: tiny, base, small, large-v3, turbo, demo …")] = None
    language: Annotated[
        str | None, _asked("--language", "-l", help="Code or name; multi: for each part; left out: detected.")
    ] = None
    languages: Annotated[str | None, _asked(metavar="L,L", help="The only ones that may be detected: en,de.")] = None
    task: Annotated[Task | None, _asked(help="translate writes English.")] = None
    priority: Annotated[Priority | None, _asked(help="high starts before every normal one.")] = None
    word_timestamps: Annotated[bool | None, _asked(help="Times of each word.")] = None
    prompt: Annotated[str | None, _asked(help="Text that shows names and style to the model.")] = None
    hotwords: Annotated[str | None, _asked(help="Words to expect, separated by spaces.")] = None
    vad: Annotated[bool | None, _asked("--vad/--no-vad", help="Skip what is not speech.")] = None
    vad_threshold: Annotated[float | None, _asked(help="Probability from which sound is speech: 0.5.")] = None
    audio_track: Annotated[str | None, _asked(metavar="N|LANGUAGE", help="Sound track of a video, from 0.")] = None
    channels: Annotated[Channels | None, _asked(help="separate transcribes each channel by itself.")] = None
    condition_on_previous_text: Annotated[bool | None, _asked(help="Show each part the text before it.")] = None
    temperature: Annotated[float | None, _asked(min=0, max=1, help="Sampling temperature.")] = None
    beam_size: Annotated[int | None, _asked(min=1, max=10, help="1 is fastest.")] = None
    run_at: Annotated[str | None, _asked(metavar="MOMENT", help="Not before: 2026-12-24T03:00:00Z.")] = None
    webhook_url: Annotated[str | None, _asked(help="Called when a job is final.")] = None
    metadata: Annotated[
        list[str] | None, _asked("--metadata", "-m", metavar="K=V", help="Comes back with the job; or a JSON object.")
    ] = None
    delete_after: Annotated[
        str | None, _asked(metavar="DURATION", help="Audio, text and job are deleted so long after: 12h, 7d.")
    ] = None

    def fields(self) -> dict[str, str]:
        """As the API's form has them. Raises Misuse."""
        metadata = _metadata(self.metadata or [])
        after_s = None if self.delete_after is None else round(seconds_of(self.delete_after))
        given = {
            "model_size": self.model_size,
            "language": self.language,
            "languages": self.languages,
            "task": self.task,
            "priority": self.priority,
            "word_timestamps": self.word_timestamps,
            "initial_prompt": self.prompt,
            "hotwords": self.hotwords,
            "vad_filter": self.vad,
            "vad_threshold": self.vad_threshold,
            "audio_track": self.audio_track,
            "channels": self.channels,
            "condition_on_previous_text": self.condition_on_previous_text,
            "temperature": self.temperature,
            "beam_size": self.beam_size,
            "run_at": self.run_at,
            "webhook_url": self.webhook_url,
            "metadata": json.dumps(metadata, sort_keys=True) if metadata else None,
            "delete_after_seconds": after_s,
        }
        return {name: _text(value) for name, value in given.items() if value is not None}


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _metadata(given: list[str]) -> dict[str, Any]:
    """JSON objects and K=V, the later ones over the earlier ones."""
    together: dict[str, Any] = {}
    for text in given:
        name, sign, value = text.partition("=")
        if text.lstrip().startswith("{"):
            together |= _object(text)
        elif name and sign:
            together[name] = value
        else:
            raise Misuse(f"--metadata {text!r} is neither K=V nor a JSON object.", hint="Write -m customer=7.")
    return together


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise Misuse(f"--metadata is no JSON object: {error}.") from None
    assert isinstance(found, dict)  # it begins with a brace
    return found


@dataclass(frozen=True, slots=True)
class Delivery:
    formats: Annotated[
        list[Format] | None, _result("--format", "-f", help="Of the transcript; may be repeated. Default: txt.")
    ] = None
    output: Annotated[
        Path | None, _result("--output", "-o", metavar="DIR", file_okay=False, help="Folder for the transcripts.")
    ] = None
    overwrite: Annotated[bool, _result("--overwrite", help="Write anew what is there, instead of skipping it.")] = False
    parallel: Annotated[int, _result("--parallel", "-j", min=1, max=64, help="Recordings sent at once.")] = 4

    def format_names(self, default: Sequence[str]) -> list[str]:
        """Each once. Raises Misuse where the default, from the configuration file, is none that there is."""
        names = [one.value for one in self.formats or ()] or list(default) or [Format.TXT.value]
        if unknown := [name for name in names if name not in list(Format)]:
            raise Misuse(f"format {unknown[0]!r} is unknown; known are {', '.join(Format)}.")
        return list(dict.fromkeys(names))
