"""Caller: who sent a request, and what they may use. A value that every room above may carry."""

from dataclasses import dataclass
from math import inf
from typing import TypeGuard

LONGEST_NAME = 255  # characters; OpenID Connect allows a `sub` no more


@dataclass(frozen=True, slots=True)
class Caller:
    """`owner` is written on each job. Limits of 0 are none."""

    owner: str  # "key:<id>", "oidc:<sub>"; empty: the operator, or anybody where no key is needed
    name: str
    role: str  # user, admin
    rate_limit_per_minute: int = 0
    quota_waiting_jobs: int = 0
    quota_audio_s_per_day: float = 0
    delete_after_s: int | None = None  # jobs are kept no longer after they are final

    @property
    def is_admin(self) -> bool:
        return self.role == "admin"

    @property
    def scope(self) -> str | None:
        """Whose jobs it sees; None: everybody's."""
        return None if self.is_admin else self.owner


OPERATOR = Caller(owner="", name="operator", role="admin")
ANYBODY = Caller(owner="", name="anybody", role="admin")  # on this machine, as long as no key was made


@dataclass(frozen=True, slots=True)
class Verified:
    """Whom a key or token names, and for how long it does."""

    caller: Caller
    left_s: float = inf


def is_name(value: object) -> TypeGuard[str]:
    """Fit for a column and for a log line: no control character, no half of a character."""
    return isinstance(value, str) and 0 < len(value) <= LONGEST_NAME and value.isprintable()
