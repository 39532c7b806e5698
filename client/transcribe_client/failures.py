"""What may go wrong for the person at the keyboard: a message, the next step, an exit code. Prints nothing.

Failure 1 (a job failed, the service is not well) · Misuse 2 · Unreachable 3 · Refused 4 (the service said no)
"""

from collections.abc import Iterable
from typing import ClassVar

WORST_FIRST = (3, 4, 1)  # of many recordings, the exit code is the first of these that applies
INTERRUPTED = 130


class Failure(Exception):
    """`str(failure)` says what happened, `hint` what to do next."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class Misuse(Failure):
    exit_code = 2


class Unreachable(Failure):
    """No answer, or one that says to come back later."""

    exit_code = 3

    def __init__(self, message: str, *, hint: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class Refused(Failure):
    exit_code = 4

    def __init__(  # what RFC 9457 tells of it
        self,
        message: str,
        *,
        hint: str = "",
        status: int,
        code: str = "",
        fields: tuple[str, ...] = (),
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.status, self.code, self.fields, self.retry_after_s = status, code, fields, retry_after_s

    @property
    def concerns_everything(self) -> bool:
        """Whether every other recording of this command would be refused for the same reason."""
        return self.status in (401, 403) or (self.code == "invalid_option" and bool({*self.fields} - {"file", "url"}))


class Stopped(Exception):
    """Ctrl-C, as a thread that sends learns of it."""


def worst(exit_codes: Iterable[int]) -> int:
    found = set(exit_codes)
    return next((code for code in WORST_FIRST if code in found), 0)
