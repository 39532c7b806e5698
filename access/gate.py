"""The gate: from a bearer token to a Caller. What it has found out it remembers for a few seconds."""

import hashlib
import hmac
from collections import OrderedDict
from datetime import UTC, datetime
from math import inf
from threading import Lock
from time import monotonic

import errors
from access import keys, oidc
from access.caller import ANYBODY, OPERATOR, Caller, Verified
from config import Settings, is_loopback
from database import transaction

REMEMBERED_S = 5.0  # so long a revoked key still works
REMEMBERED_AT_MOST = 10_000
NO_KEY = "This service needs an API key: send it as 'Authorization: Bearer KEY'."
BAD_KEY = "This API key is unknown, expired or revoked. Ask the operator of this service for another."


class Gate:
    """One an API process, shared by its threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = Lock()
        self._known: OrderedDict[bytes, tuple[Caller, float]] = OrderedDict()
        self._tokens = oidc.open_verifier(settings)

    def recall(self, token: str) -> Caller | None:
        """Who shows this token, if that is known without asking anybody: cheap enough for an event loop."""
        return OPERATOR if self._is_operators(token) else self._remembered(_name(token))

    def admit(self, token: str) -> Caller:
        """Who shows this token; empty: none was shown. Raises Unauthorized, or Unavailable without the database."""
        if (caller := self.recall(token)) is not None:
            return caller
        verified = self._look_up(token) if token else self._nobody()
        self._remember(_name(token), verified)
        return verified.caller

    def forget(self) -> None:
        """Look everybody up again: a key was made or revoked in this process."""
        with self._lock:
            self._known.clear()

    def _nobody(self) -> Verified:
        if self._needs_no_key():
            return Verified(ANYBODY)
        raise errors.Unauthorized(NO_KEY)

    def _is_operators(self, token: str) -> bool:
        expected = self._settings.api_key.get_secret_value()
        return bool(expected) and hmac.compare_digest(token.encode(), expected.encode())

    def _needs_no_key(self) -> bool:
        """Only on loopback, and only as long as no key was ever made."""
        if self._settings.has_configured_access or not is_loopback(self._settings.host):
            return False
        return not any_key_exists()

    def _look_up(self, token: str) -> Verified:
        if self._tokens is not None and not token.startswith(keys.PREFIX):
            return self._tokens.verify(token)
        with transaction() as session:
            if (key := keys.find(session, token, self._settings)) is not None:
                keys.note_use(session, key)
                return Verified(keys.caller_of(key, self._settings), _left_s(key.expires_at))
        if self._needs_no_key():  # people who come from another service leave its key in their client
            return Verified(ANYBODY)
        raise errors.Unauthorized(BAD_KEY)

    def _remembered(self, name: bytes) -> Caller | None:
        with self._lock:
            caller, until = self._known.get(name, (None, 0.0))
        return caller if monotonic() < until else None

    def _remember(self, name: bytes, verified: Verified) -> None:
        """Never longer than the key or token is good."""
        with self._lock:
            self._known[name] = (verified.caller, monotonic() + min(REMEMBERED_S, verified.left_s))
            self._known.move_to_end(name)
            if len(self._known) > REMEMBERED_AT_MOST:
                self._known.popitem(last=False)


def any_key_exists() -> bool:
    with transaction() as session:
        return keys.any_exist(session)


def _left_s(expires_at: datetime | None) -> float:
    return inf if expires_at is None else (expires_at - datetime.now(UTC)).total_seconds()


def _name(token: str) -> bytes:
    """Under which a token is remembered: a dump of our memory shows none."""
    return hashlib.sha256(token.encode()).digest()
