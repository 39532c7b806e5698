"""`models`: which are on this machine and which are loaded; they are fetched, and their 8-bit copies made, beforehand.

The engines are imported inside the commands: other commands start without them.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import errors
from admin.commands import Commands, add_command, add_group, print_json, print_table
from config import MODEL_SIZES, Settings, get_settings
from database import transaction
from jobs import presence, read

MB = 1_000_000
COLUMNS = ("SIZE", "ON THIS MACHINE", "MB", "8-BIT COPY", "LOADED ON")


def add(groups: Commands) -> None:
    commands = add_group(groups, "models", about="models: fetched, copied to 8 bits, loaded")
    add_command(commands, "list", _list, about="every size, and where it is", example="models list")
    pulled = add_command(
        commands,
        "pull",
        _pull,
        about="fetch into the cache of this machine, from MODEL_SOURCES",
        example="models pull small large-v3",
    )
    quantised = add_command(
        commands,
        "quantise",
        _quantise,
        about="make the 8-bit copy now that the first load would make: int8 loads faster",
        example="models quantise small",
    )
    for command in (pulled, quantised):
        command.add_argument("sizes", type=_size, nargs="+", metavar="SIZE", help="as `models list` shows it")


def _size(text: str) -> str:
    if text not in MODEL_SIZES and "/" not in text:
        raise argparse.ArgumentTypeError(f"expected one of {', '.join(MODEL_SIZES)}, not {text!r}")
    return text


def _list(asked: argparse.Namespace) -> None:
    settings, loaded = get_settings(), _loaded_as_far_as_known()
    from engines.catalog import canonical

    sizes = dict.fromkeys([*map(canonical, MODEL_SIZES), canonical(settings.whisper_model_size), *(loaded or {})])
    found = [_state(size, settings, None if loaded is None else loaded.get(size, [])) for size in sizes]
    if asked.json:
        print_json(found)
        return
    print_table(COLUMNS, [_row(one) for one in found])


def _row(one: dict[str, Any]) -> tuple[object, ...]:
    places = "?" if one["loaded"] is None else ", ".join(f"{p['device']} of {p['worker']}" for p in one["loaded"])
    here = "cached" if one["cached"] else None
    size = one["size"] + (" (default)" if one["is_default"] else "")
    return (size, here, one["size_mb"], one["int8_copy"], places or None)


def _state(size: str, settings: Settings, loaded: list[dict[str, Any]] | None) -> dict[str, Any]:
    from engines.catalog import canonical, find
    from engines.hub_cache import revision_of

    folder = find(size, settings)
    return {
        "size": size,
        "is_default": size == canonical(settings.whisper_model_size),
        "cached": folder is not None,
        "revision": folder and revision_of(folder),
        "size_mb": folder and round(_bytes_of(folder) / MB, 1),
        "int8_copy": folder and _copy_state(folder, settings),
        "loaded": loaded,
    }


def _bytes_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


def _copy_state(folder: Path, settings: Settings) -> str:
    from engines import quantized

    if quantized.files_to_load(folder, "int8", settings) != folder:
        return "ready"
    if not settings.model_quantized_copies:
        return "off"
    return "none" if quantized.needs_copy(folder, "int8", settings) else "not needed"


def _loaded_as_far_as_known() -> dict[str, list[dict[str, Any]]] | None:
    """By size; None, and a word about it, where the database is away: what is cached is known without it."""
    try:
        return _loaded(get_settings())
    except errors.Unavailable as reason:
        print(f"Where they are loaded is not known. {reason}", file=sys.stderr)
        return None


def _loaded(settings: Settings) -> dict[str, list[dict[str, Any]]]:
    within_s = presence.seen_within_s(settings)
    with transaction() as session:
        children = read.transcribers(session, within_s=within_s)
    found: dict[str, list[dict[str, Any]]] = {}
    for one in presence.devices_of(children):
        place = {"worker": one["worker"], "device": one["device"], "process": one["pid"]}
        for model in one.get("loaded", ()):
            found.setdefault(model["size"], []).append(place | {"compute_type": model["compute_type"]})
    return found


def _pull(asked: argparse.Namespace) -> None:
    from engines.catalog import pull

    settings, done = get_settings(), []
    for size in asked.sizes:
        is_new = pull(size, settings)
        done.append({"size": size, "downloaded": is_new})
        _tell(asked, f"{size} {'is downloaded' if is_new else 'is here already'}.")
    if asked.json:
        print_json(done)


def _quantise(asked: argparse.Namespace) -> None:
    settings, done = get_settings(), []
    if not settings.model_quantized_copies:
        raise errors.ModelUnavailable("MODEL_QUANTIZED_COPIES is off: no copy would be used. Nothing was made.")
    for size in asked.sizes:
        made, said = _copy(size, settings)
        done.append({"size": size, "made": made})
        _tell(asked, f"{size}: {said}.")
    if asked.json:
        print_json(done)


def _copy(size: str, settings: Settings) -> tuple[bool, str]:
    """Whether one was made now, and what to say."""
    from engines import catalog, quantized

    if not catalog.is_cached(size, settings):
        raise errors.ModelUnavailable(f"Model '{size}' is not on this machine: `python -m admin models pull {size}`.")
    folder = catalog.locate(size, settings)
    match _copy_state(folder, settings):
        case "ready":
            return False, "its 8-bit copy is ready already"
        case "not needed":
            return False, "its files are in 8 bits, so no copy is needed"
    quantized.make_copy(folder, settings)
    if quantized.needs_copy(folder, "int8", settings):
        raise errors.ModelUnavailable(
            f"The copy of '{size}' could not be made: the disk is nearly full, the folder of the models may not be "
            "written, or another process is at it. Everything works without it, only slower."
        )
    return True, "its 8-bit copy is made"


def _tell(asked: argparse.Namespace, sentence: str) -> None:
    if not asked.json:
        print(sentence)
