"""Which server, which key, which defaults, and where each comes from: option > environment > file > default.

The only place that reads the environment. A key is never shown whole.
"""

import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import platformdirs

from transcribe_client.failures import Misuse

DEFAULT_SERVER = "http://127.0.0.1:8000"
NAMES = {"server": "TRANSCRIBE_SERVER", "key": "TRANSCRIBE_KEY"}
CONFIG_VARIABLE = "TRANSCRIBE_CONFIG"
SHOWN_OF_A_KEY = 4  # characters, where it has several times as many


@dataclass(frozen=True, slots=True)
class Setting:
    value: str
    source: str


@dataclass(frozen=True, slots=True)
class Settings:
    server: Setting
    key: Setting
    file: Path
    file_exists: bool
    formats: list[str]  # of transcripts, where no option says
    submit: Mapping[str, Any]  # defaults for the other options of submit and watch


def read_settings(*, server: str | None, key: str | None, config: Path | None) -> Settings:
    """Raises Misuse."""
    file = _file(config)
    told = _told(config)
    formats = _listed({"format": told.get("submit", {}).get("format", [])}, "format")["format"]
    held = {"server": server, "key": key}
    found = {name: _found(name, value, told, file) for name, value in held.items()}
    return Settings(
        server=_checked(found["server"] or Setting(DEFAULT_SERVER, "default")),
        key=found["key"] or Setting("", "not set"),
        file=file,
        file_exists=file.exists(),
        formats=formats,
        submit=submit_defaults(config),
    )


def submit_defaults(config: Path | None) -> Mapping[str, Any]:
    """Of the configuration file, without a look at the rest. Raises Misuse."""
    defaults = dict(_told(config).get("submit", {}))
    defaults.pop("format", None)
    return _listed(defaults, "metadata")


def _told(config: Path | None) -> dict[str, Any]:
    return _read(_file(config), is_asked_for=config is not None or CONFIG_VARIABLE in os.environ)


def _file(config: Path | None) -> Path:
    named = config or os.environ.get(CONFIG_VARIABLE)
    return Path(named) if named else platformdirs.user_config_path("transcribe") / "config.toml"


def _read(file: Path, *, is_asked_for: bool) -> dict[str, Any]:
    try:
        told = tomllib.loads(file.read_text())
    except FileNotFoundError:
        if is_asked_for:
            raise Misuse(f"There is no configuration file {file}.") from None
        return {}
    except (OSError, ValueError) as error:
        raise Misuse(f"The configuration file {file} cannot be read: {error}") from None
    _refuse_unknown(told, file)
    return told


def _refuse_unknown(told: dict[str, Any], file: Path) -> None:
    known: dict[str, Callable[[object], bool]] = {
        "server": lambda value: isinstance(value, str),
        "key": lambda value: isinstance(value, str),
        "submit": lambda value: isinstance(value, dict),
    }
    for name, value in told.items():
        if name not in known:
            raise Misuse(f"{file} has a setting {name!r} that is unknown.", hint=f"Known are {', '.join(known)}.")
        if not known[name](value):
            expected = "a table, [submit]" if name == "submit" else "a text in quotes"
            raise Misuse(f"{name} in {file} must be {expected}.")


def _found(name: str, option: str | None, told: Mapping[str, Any], file: Path) -> Setting | None:
    if option is not None:
        return Setting(option, f"--{name}")
    if value := os.environ.get(NAMES[name]):
        return Setting(value, NAMES[name])
    return Setting(told[name], str(file)) if told.get(name) else None


def _checked(server: Setting) -> Setting:
    address = server.value.rstrip("/")
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        hint = f"Write it as {DEFAULT_SERVER}."
        raise Misuse(f"{server.value!r}, from {server.source}, is not the address of a server.", hint=hint)
    return Setting(address, server.source)


def _listed(defaults: Mapping[str, Any], several: str) -> dict[str, Any]:
    """An option that may come several times is a list; one alone needs no brackets."""
    return {name: [value] if name == several and isinstance(value, str) else value for name, value in defaults.items()}


def masked(key: str) -> str:
    if len(key) < 4 * SHOWN_OF_A_KEY:
        return "…" if key else ""
    return f"{key[:3]}…{key[-SHOWN_OF_A_KEY:]}"


def is_loopback(server: str) -> bool:
    host = urlsplit(server).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def state_file() -> Path:
    return platformdirs.user_state_path("transcribe") / "jobs.jsonl"
