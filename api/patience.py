"""How long a caller is willing to wait for an answer: `?wait=30`, or `Prefer: wait=30` (RFC 7240, 4.3)."""

import re
from typing import Annotated

from fastapi import Depends, Header, Query

LONGEST_S = 60  # proxies and clients give up soon after
_WAIT = re.compile(r"(?:^|,)\s*wait\s*=\s*\"?([0-9]{1,9})\"?\s*(?=[,;]|$)", re.IGNORECASE)
InQuery = Annotated[
    int | None, Query(ge=0, le=LONGEST_S, description="Seconds: answer once the status changes, or after so long.")
]
InHeader = Annotated[str | None, Header(description="`wait=30`: as the parameter `wait`.")]


def _patience(wait: InQuery = None, prefer: InHeader = None) -> int | None:
    """Seconds. A preference that goes too far is met as far as it can be."""
    if wait is None and (found := _WAIT.search(prefer or "")):
        return min(int(found[1]), LONGEST_S)
    return wait


Wait = Annotated[int | None, Depends(_patience)]
