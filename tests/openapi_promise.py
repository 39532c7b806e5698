"""docs/openapi.json is a promise: what in a newer document would break a client that was written against it.

`python -m tests.openapi_promise` writes the document anew, where it only grew.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app import create_app
from config import Settings

PROMISE = Path(__file__).parents[1] / "docs" / "openapi.json"
Json = dict[str, Any]


def current() -> Json:
    # Addresses that nobody calls: the document asks for neither
    settings = Settings(database_url="postgresql://localhost/none", redis_url="redis://localhost:1/0")
    document: Json = json.loads(json.dumps(create_app(settings).openapi()))
    return document


def breaks(old: Json, new: Json) -> Iterator[str]:
    """Complaints, each about one thing that clients may rely on and that is gone, or that they must newly send."""
    for path, operations in old["paths"].items():
        for method, was in operations.items():
            now = new["paths"].get(path, {}).get(method)
            if now is None:
                yield f"{method.upper()} {path} is gone"
                continue
            for complaint in _operation_breaks(was, now):
                yield f"{method.upper()} {path}: {complaint}"
    names = old["components"]["schemas"].keys()
    for name in names:
        was, now = old["components"]["schemas"][name], new["components"]["schemas"].get(name)
        yield from (f"{name}: {complaint}" for complaint in _schema_breaks(was, now or {}))


def _operation_breaks(was: Json, now: Json) -> Iterator[str]:
    yield from (f"no longer answers {status}" for status in was["responses"].keys() - now["responses"].keys())
    known = {(item["in"], item["name"]): item for item in now.get("parameters", ())}
    for item in was.get("parameters", ()):
        if (item["in"], item["name"]) not in known:
            yield f"no longer takes {item['name']}"
    old = {(item["in"], item["name"]): item for item in was.get("parameters", ())}
    for place, item in known.items():
        if item.get("required") and not old.get(place, {}).get("required"):
            yield f"newly demands {item['name']}"
    for media, content in was.get("requestBody", {}).get("content", {}).items():
        other = now.get("requestBody", {}).get("content", {}).get(media)
        if other is None:
            yield f"no longer takes {media}"
            continue
        yield from _schema_breaks(content["schema"], other["schema"], is_input=True)


def _schema_breaks(was: Json, now: Json, *, is_input: bool = False) -> Iterator[str]:
    for name, one in was.get("properties", {}).items():
        other = now.get("properties", {}).get(name)
        if other is None:
            yield f"{name} is gone"
        elif _shape(one) != _shape(other):
            yield f"{name} was {_shape(one)} and is {_shape(other)}"
    before, after = set(was.get("required", ())), set(now.get("required", ()))
    if is_input:
        yield from (f"newly demands {name}" for name in after - before)
    else:
        yield from (f"no longer always has {name}" for name in before - after)


def _shape(schema: Json) -> str:
    """Type and allowed values; words and examples may change."""
    kept = {
        name: schema[name] for name in ("type", "format", "enum", "$ref", "anyOf", "items", "const") if name in schema
    }
    return json.dumps(kept, sort_keys=True)


def main() -> int:
    document = current()
    if PROMISE.exists() and (complaints := list(breaks(json.loads(PROMISE.read_text()), document))):
        print("These changes break clients:", *complaints, sep="\n  ", file=sys.stderr)
        return 1
    PROMISE.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
