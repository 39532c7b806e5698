"""What the bench found, as tables, JSON and texts side by side; and the bounds that the project has set itself."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.accuracy import groups as by_group
from bench.accuracy.groups import POOLED, STOCK, Group, Heard
from bench.accuracy.manifest import Recording
from bench.accuracy.scoring import marked, score

OURS = "ours"
POOLED_AT_MOST = 0.95  # of stock's error rate
POINTS, ERRORS = 0.5, 2  # a group may be worse than stock by either
NOT_BOUND = {"kind", POOLED}  # the first says the groups again; the other has its own bound
Json = dict[str, Any]


def findings(recordings: Sequence[Recording], heard: Heard) -> Json:
    """Everything but the texts, for JSON."""
    stock = heard.get(STOCK)
    found = {
        "groups": [group.as_json() for group in by_group.groups(recordings, heard)],
        "invented": by_group.invented(recordings, heard),
        "sides": {
            side: {
                "wrong_languages": by_group.wrong_languages(recordings, answers),
                "without_text": by_group.without_text(recordings, answers),
                "scripts": by_group.scripts(recordings, answers),
                "mixed_scripts": by_group.mixed_scripts(recordings, answers),
                "failed": [one.id for one in recordings if "error" in answers[one.id]],
                "starts": {} if stock is None or side == STOCK else by_group.times(recordings, answers, stock),
            }
            for side, answers in heard.items()
        },
    }
    return found | {"broken": broken(by_group.groups(recordings, heard), found)}


def broken(groups: Sequence[Group], found: Json) -> list[str]:
    """Each bound that ours does not keep, as a sentence; those about stock only where stock is there."""
    sides = found["sides"]
    if OURS not in sides:
        return []
    ours = sides[OURS]
    complaints = list(_against_stock(groups)) if STOCK in sides else []
    for one in found["invented"]:
        if count := one["words"][OURS]:
            complaints.append(f"{one['group']}: {count} words invented where nobody speaks")
    complaints += [f"{one['id']}: {one['language']} taken for {one['found']}" for one in ours["wrong_languages"]]
    complaints += [f"{name}: simplified and traditional characters in one text" for name in ours["mixed_scripts"]]
    return complaints + [f"{name}: the job failed" for name in ours["failed"]]


def _against_stock(groups: Sequence[Group]) -> Iterator[str]:
    for group in groups:
        rate, stock = group.scores[OURS].rate, group.scores[STOCK].rate
        points, errors = group.difference(OURS)
        if group.name == POOLED and rate > POOLED_AT_MOST * stock:
            yield f"pooled: {rate:.2f} % is above {POOLED_AT_MOST:g} x stock's {stock:.2f} %"
        elif group.section not in NOT_BOUND and points > POINTS and errors > ERRORS:
            yield f"{group.name}: {rate:.1f} % against stock's {stock:.1f} %, {errors} errors more"


def table(groups: Sequence[Group]) -> Iterator[str]:
    """Word error rate in per cent; in brackets words substituted, deleted, inserted."""
    sides = list(groups[0].scores) if groups else []
    wide = {side: max(len(side), 22) for side in sides}
    against = [side for side in sides if side != STOCK and STOCK in sides]
    yield (
        f"{'group':24} {'n':>4} {'words':>6} "
        + " ".join(f"{side:>{wide[side]}}" for side in sides)
        + "".join(f" {side + ' - stock':>22}" for side in against)
    )
    for group in groups:
        scores = group.scores
        cells = " ".join(f"{_cell(scores[side]):>{wide[side]}}" for side in sides)
        differences = "".join(f" {'{:+.1f} ({:+d} errors)'.format(*group.difference(side)):>22}" for side in against)
        yield f"{group.name:24} {group.recordings:4} {scores[sides[0]].words:6} {cells}{differences}"


def _cell(one: Any) -> str:
    return f"{one.rate:.1f} ({one.substituted} {one.deleted} {one.inserted})"


def notes(found: Json) -> Iterator[str]:
    for one in found["invented"]:
        words = ", ".join(f"{side} {count} ({one['words_per_minute'][side]:g})" for side, count in one["words"].items())
        yield f"nothing spoken, {one['group']}, {one['minutes']:g} min: words invented (a minute): {words}"
    for side, seen in found["sides"].items():
        wrong = ", ".join(f"{one['id']} ({one['language']} as {one['found']})" for one in seen["wrong_languages"])
        yield f"{side}: language wrong: {wrong or 'none'}"
        yield f"{side}: speech, but no text: {', '.join(seen['without_text']) or 'none'}"
        if seen["scripts"]:
            yield f"{side}: script: {', '.join(f'{name} {kind}' for name, kind in seen['scripts'].items())}"
        for what, error in seen["starts"].items():
            yield (
                f"{side}: starts of {error['compared']} {what} against stock's sequential: median {error['median']} s, "
                f"95 % within {error['p95']} s"
            )
        if seen["failed"]:
            yield f"{side}: failed: {', '.join(seen['failed'])}"
    yield from (f"BROKEN  {complaint}" for complaint in found["broken"])


def side_by_side(recordings: Sequence[Recording], heard: Heard) -> list[str]:
    """A paragraph for each recording on which ours and another side differ, the worst against stock first."""
    first, *others = heard
    different = [
        one
        for one in recordings
        if any(marked(one, heard[first][one.id]["text"]) != marked(one, heard[side][one.id]["text"]) for side in others)
    ]
    against = STOCK if STOCK in heard else (others or [first])[0]

    def worse(one: Recording) -> int:
        return _errors(one, heard[first]) - _errors(one, heard[against])

    return [_paragraph(one, heard) for one in sorted(different, key=worse, reverse=True)]


def _errors(recording: Recording, answers: Mapping[str, Json]) -> int:
    return score(recording, answers[recording.id]["text"]).errors


def _paragraph(recording: Recording, heard: Heard) -> str:
    head = f"{recording.id}  {recording.group}, {recording.language}, {recording.seconds:g} s"
    lines = [head, f"  {'said':10} {recording.text if recording.text is not None else '(nobody wrote it down)'}"]
    for side, answers in heard.items():
        answer = answers[recording.id]
        if recording.text is None:
            lines.append(f"  {side:10} {answer['text']}")
        else:
            errors = _errors(recording, answers)
            lines += [
                f"  {side:10} {errors} errors: {marked(recording, answer['text'])}",
                f"  {'':10} {answer['text']}",
            ]
    return "\n".join(lines)
