"""transcribe config: which settings hold, and where each comes from."""

import typer

from transcribe_client import tables
from transcribe_client.commands import command
from transcribe_client.session import Session
from transcribe_client.settings import masked, state_file


def register(app: typer.Typer) -> None:
    examples = ("transcribe config", "transcribe config --server https://asr.example.com --json")
    command(app, "config", examples=examples)(config)


def config(session: Session) -> None:
    """Show which server, key and defaults hold, and where each comes from.

    An option goes before the environment (TRANSCRIBE_SERVER, TRANSCRIBE_KEY), that before the configuration file:

    server = "https://asr.example.com", key = "tk_…", and below [submit] the names of submit's options:
    model_size = "small", language = "en", format = ["srt", "txt"].
    """
    settings = session.settings
    held = {
        "server": (settings.server.value, settings.server.source),
        "key": (masked(settings.key.value), settings.key.source),
    }
    defaults = dict(settings.submit) | ({"format": settings.formats} if settings.formats else {})
    if session.as_json:
        told = {name: {"value": value, "source": source} for name, (value, source) in held.items()}
        files = {"file": str(settings.file), "file_exists": settings.file_exists, "state": str(state_file())}
        session.put_json({**told, "submit": defaults, **files})
        return
    rows = [(name, value, source) for name, (value, source) in held.items()]
    rows += [(f"submit.{name}", _shown(value), str(settings.file)) for name, value in defaults.items()]
    tables.put(session.out, ("setting", "value", "from"), rows)
    session.say(f"Configuration file: {settings.file}{'' if settings.file_exists else ' (there is none)'}")


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
