"""Small bodies: JSON or a form without files, read whole up to a cap."""

import json
from typing import Any
from urllib.parse import parse_qsl

from fastapi import Request

import errors
from api.uploads import MAX_FIELD_BYTES

FORM, JSON = "application/x-www-form-urlencoded", "application/json"


def media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def receive_fields(request: Request) -> dict[str, Any]:
    """Raises InvalidOption, TooLarge."""
    body = await _body(request)
    try:
        if media_type(request) == FORM:
            return dict(parse_qsl(body.decode(), max_num_fields=1000))  # without those that were left empty
        fields = json.loads(body)
    except (ValueError, RecursionError):
        raise errors.InvalidOption(("body", "is not JSON, nor a form, in UTF-8")) from None
    if not isinstance(fields, dict):
        raise errors.InvalidOption(("body", 'expected a JSON object, such as {"url": "https://example.com/a.mp3"}'))
    return {name: value for name, value in fields.items() if value not in ("", None)}


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FIELD_BYTES:
            raise errors.TooLarge(f"A body without a file may have {MAX_FIELD_BYTES // 1024} KiB.")
    return bytes(body)
