"""Accuracy on recordings whose text is known: ours, through the running service, against stock faster-whisper.

`python -m bench.accuracy FOLDER`. Stock hears each recording once on this machine; what it said is kept.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.accuracy import report
from bench.accuracy.cache import Asked, StockCache
from bench.accuracy.groups import groups
from bench.accuracy.librispeech import MD5, corpus
from bench.accuracy.manifest import Recording, read
from bench.accuracy.ours import Service, own_service
from bench.measure import RESULTS, machine
from config import Settings
from engines.catalog import locate

ROOT = Path(__file__).parents[2]
SIDES = (report.OURS, "sequential", "batched")
Json = dict[str, Any]


def main() -> int:
    given = arguments()
    recordings = chosen(read(given.folder or corpus(given.librispeech)), given)
    heard = listen(recordings, given)
    found = report.findings(recordings, heard)
    for line in (*report.table(groups(recordings, heard)), "", *report.notes(found)):
        print(line)
    texts = report.side_by_side(recordings, heard)
    for text in texts[: given.show]:
        print(f"\n{text}")
    write(given, found, texts, {side: dict(answers) for side, answers in heard.items()})
    return 1 if given.assert_bounds and found["broken"] else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.accuracy", description=__doc__)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("folder", nargs="?", type=Path, help="with manifest.json and what it names")
    where.add_argument("--librispeech", choices=list(MD5), help="fetched from OpenSLR, once")
    parser.add_argument("--model", default="base", help="a size, or a folder with CTranslate2's files")
    parser.add_argument("--compute-type", default="int8")
    parser.add_argument("--beam", type=int, default=5)
    parser.add_argument("--vad", action=argparse.BooleanOptionalAction, default=True, help="skip what is not speech")
    parser.add_argument("--words", action="store_true", help="with times of words: stock's text may change a little")
    parser.add_argument("--language", choices=("detected", "given"), default="detected")
    parser.add_argument("--groups", nargs="+", metavar="GROUP", help="of the manifest; all")
    parser.add_argument("--ids", nargs="+", metavar="ID", help="these recordings alone")
    parser.add_argument("--limit", type=int, metavar="N", help="recordings of each group")
    parser.add_argument("--only", nargs="+", choices=SIDES, default=SIDES)
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="settings of our service")
    parser.add_argument("--compare", nargs="+", default=[], metavar="NAME=VALUE", help="ours once more, with these")
    parser.add_argument("--workers", type=int, default=2, help="children of our service")
    parser.add_argument("--url", help="of a running service to use instead of one of our own")
    parser.add_argument("--key", default="", help="for it")
    parser.add_argument("--cache", type=Path, default=ROOT / "build" / "accuracy", help="of what stock said")
    parser.add_argument("--cached", action="store_true", help="only what stock has heard already")
    parser.add_argument("--name", default="accuracy", help="of the files with the results")
    parser.add_argument("--show", type=int, default=5, metavar="N", help="recordings printed, the worst first")
    parser.add_argument("--assert", dest="assert_bounds", action="store_true", help="status 1 where a bound is broken")
    return parser.parse_args()


def chosen(recordings: Sequence[Recording], given: argparse.Namespace) -> list[Recording]:
    """Raises SystemExit where a name is unknown, or none is left."""
    for kind, asked, there in (
        ("group", given.groups, {one.group for one in recordings}),
        ("id", given.ids, {one.id for one in recordings}),
    ):
        if unknown := set(asked or ()) - there:
            raise SystemExit(f"The manifest has no {kind} {', '.join(sorted(unknown))}.")
    kept: dict[str, list[Recording]] = {}
    for one in recordings:
        if (not given.groups or one.group in given.groups) and (not given.ids or one.id in given.ids):
            kept.setdefault(one.group, []).append(one)
    found = [one for members in kept.values() for one in members[: given.limit]]
    if given.cached:
        found = known(found, given)
    if not found:
        raise SystemExit("No recording is left to hear.")
    return found


def listen(recordings: Sequence[Recording], given: argparse.Namespace) -> dict[str, dict[str, Json]]:
    """What each side says, by recording. One after the other: how busy the machine is changes no text."""
    asked, settings = asked_for(given), pairs(given.set)
    heard: dict[str, dict[str, Json]] = {}
    if report.OURS in given.only:
        heard[report.OURS] = hear_ours(recordings, given, asked, settings)
    if given.compare:
        heard[" ".join(given.compare)] = hear_ours(recordings, given, asked, settings | pairs(given.compare))
    if stock := stock_sides(given):
        cache = StockCache(given.cache, folder_of(given.model), asked)
        heard |= {side: cache.hear(side, recordings, given=given.language == "given") for side in stock}
    return heard


def asked_for(given: argparse.Namespace) -> Asked:
    return Asked(given.compute_type, given.beam, given.vad, given.words)


def stock_sides(given: argparse.Namespace) -> list[str]:
    return [side for side in SIDES if side in given.only and side != report.OURS]


def known(recordings: Sequence[Recording], given: argparse.Namespace) -> list[Recording]:
    """Those that stock has heard already."""
    cache = StockCache(given.cache, folder_of(given.model), asked_for(given))
    return [
        one
        for one in recordings
        if all(cache.has(side, one, given=given.language == "given") for side in stock_sides(given))
    ]


def hear_ours(
    recordings: Sequence[Recording], given: argparse.Namespace, asked: Asked, settings: dict[str, str]
) -> dict[str, Json]:
    is_given = given.language == "given"
    named = "".join(f" {name}={value}" for name, value in settings.items())
    print(f"Ours{named}: {len(recordings)} recordings.", flush=True)
    if given.url:
        return Service(given.url, given.key, given.model).hear(recordings, asked, given=is_given)
    told = {"COMPUTE_TYPE": asked.compute_type, "CELERY_CONCURRENCY": str(given.workers)} | settings
    with own_service(folder_of(given.model), told) as service:
        return service.hear(recordings, asked, given=is_given)


def folder_of(model: str) -> Path:
    """Its files: both sides read the same ones."""
    if "/" in model:
        return locate(model, Settings(model_allowed_paths=str(Path(model).resolve().parent)))
    return locate(model, Settings())


def pairs(settings: Sequence[str]) -> dict[str, str]:
    """Raises SystemExit where one has no '='."""
    if wrong := [one for one in settings if "=" not in one]:
        raise SystemExit(f"A setting is given as NAME=VALUE, not as {wrong[0]}.")
    return {name.upper(): value for name, _, value in (one.partition("=") for one in settings)}


def write(given: argparse.Namespace, found: Json, texts: Sequence[str], heard: dict[str, dict[str, Json]]) -> None:
    RESULTS.mkdir(exist_ok=True)
    asked = {name: str(value) for name, value in vars(given).items() if name not in ("key", "folder", "cache")}
    content = {"bench": "accuracy", "machine": machine(), "asked": asked, **found, "heard": heard}
    path = RESULTS / f"{given.name}.json"
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    beside = path.with_name(f"{path.stem}-texts.txt")
    beside.write_text("\n\n".join(texts) + "\n")
    print(f"\nResults are in {path}, texts side by side in {beside.name}.")


if __name__ == "__main__":
    sys.exit(main())
