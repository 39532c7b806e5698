"""The signing keys of an OpenID Connect issuer, fetched when first needed and kept.

It is asked seldom, by one thread at a time: a stranger with made-up tokens can neither make us hammer it nor wait
for it. While it is away, keys that it has shown before stay good for an hour.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from threading import Lock
from time import monotonic
from typing import Any

import jwt

import errors
from telemetry.events import emit

FETCH_TIMEOUT_S = 3.0
FRESH_S = 300.0  # then they are fetched anew at the next token
STALE_S = 3600.0  # then they are not believed any more, whatever became of the issuer
COOLDOWN_S = 10.0  # between two fetches: so long a token with a new key may be refused
AFTER_FAILURE_S = 5.0
WAIT_S = 1.0  # for a fetch that another thread has begun
ALGORITHMS = {
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "EC": ("ES256", "ES384", "ES512"),
    "OKP": ("EdDSA",),
}
AWAY = "The issuer of your token cannot be asked for its keys at the moment. Try again in a few seconds."
UNKNOWN = "This token is signed with a key that its issuer does not show. Sign in again and send the new token."


@dataclass(frozen=True, slots=True)
class SigningKey:
    public: Any
    algorithms: tuple[str, ...]  # asymmetric ones of its own kind: a public key is never taken for an HMAC secret


@dataclass(frozen=True, slots=True)
class Keyring:
    keys: Mapping[str, SigningKey] = field(default_factory=dict)
    fetched_at: float = float("-inf")
    ask_after: float = float("-inf")
    is_away: bool = False

    def find(self, kid: str | None) -> SigningKey | None:
        """A token without a key id fits an issuer with a single key."""
        if kid is None:
            return next(iter(self.keys.values())) if len(self.keys) == 1 else None
        return self.keys.get(kid)


class Issuer:
    def __init__(self, url: str, jwks_url: str = "") -> None:
        self._url = url.rstrip("/")
        self._jwks_url = jwks_url  # empty: as the discovery document says
        self._ring = Keyring()
        self._fetching = Lock()

    def key(self, kid: str | None) -> SigningKey:
        """Raises Unauthorized where the issuer shows no such key, Unavailable where it cannot be asked."""
        found = self._ring.find(kid)
        if found is None or monotonic() - self._ring.fetched_at >= FRESH_S:
            self._renew(wait_s=WAIT_S if found is None else 0)
            found = self._ring.find(kid)
        ring = self._ring
        if found is not None and monotonic() - ring.fetched_at < STALE_S:
            return found
        raise errors.Unavailable(AWAY) if ring.is_away else errors.Unauthorized(UNKNOWN)

    def _renew(self, *, wait_s: float) -> None:
        if monotonic() < self._ring.ask_after:
            return
        if not self._fetching.acquire(timeout=wait_s):
            if wait_s:
                raise errors.Unavailable(AWAY)
            return
        try:
            if monotonic() >= self._ring.ask_after:  # else another thread has asked while we waited
                self._ring = self._asked()
        finally:
            self._fetching.release()

    def _asked(self) -> Keyring:
        try:
            keys = _keys_of(_fetch(self._jwks_url or self._discovered()))
        except (jwt.PyJWTError, ValueError, OSError, RecursionError) as reason:
            emit("oidc.issuer_away", issuer=self._url, reason=str(reason))
            return replace(self._ring, ask_after=monotonic() + AFTER_FAILURE_S, is_away=True)
        now = monotonic()
        return Keyring(keys, fetched_at=now, ask_after=now + COOLDOWN_S)

    def _discovered(self) -> str:
        """Where its keys are. Asked again before each fetch: both are rare, and an issuer may move its keys."""
        document = _fetch(f"{self._url}/.well-known/openid-configuration")
        if str(document.get("issuer")).rstrip("/") != self._url:
            raise ValueError(f"its discovery document is of the issuer {document.get('issuer')}, not of {self._url}")
        found = str(document.get("jwks_uri"))
        if self._url.startswith("https:") and not found.startswith("https:"):
            raise ValueError(f"its keys are not at an https address: {found}")
        return found


def _fetch(url: str) -> dict[str, Any]:
    """A JSON object, of http or https, without a redirect."""
    fetched: dict[str, Any] = jwt.PyJWKClient(url, cache_jwk_set=False, timeout=FETCH_TIMEOUT_S).fetch_data()
    return fetched


def _keys_of(document: Mapping[str, Any]) -> dict[str, SigningKey]:
    """Raises ValueError where there is none that we can use."""
    shown = document.get("keys")
    items = [item for item in shown if isinstance(item, dict)] if isinstance(shown, list) else []
    keys = {str(item.get("kid", "")): key for item in items if (key := _key_of(item)) is not None}
    if not keys:
        raise ValueError("it shows no key for signatures that can be used")
    return keys


def _key_of(item: dict[str, Any]) -> SigningKey | None:
    of_its_kind = ALGORITHMS.get(str(item.get("kty")), ())
    algorithms = tuple(name for name in of_its_kind if item.get("alg") in (None, name))
    if not algorithms or item.get("use") not in (None, "sig"):
        return None
    try:
        return SigningKey(jwt.PyJWK(item).key, algorithms)
    except (jwt.PyJWTError, ValueError, TypeError):  # one that we do not understand does not spoil the others
        return None
