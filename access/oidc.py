"""Bearer tokens of an OpenID Connect issuer: whom they name, in which role, whether they are good now."""

from time import time
from typing import Any

import jwt

import errors
from access import keys
from access.caller import Caller, Verified, is_name
from access.issuer import ALGORITHMS, Issuer, SigningKey
from config import Settings

LEEWAY_S = 60  # between our clock and the issuer's
NEEDED = ("exp", "iss", "aud", "sub")
ASYMMETRIC = frozenset(name for names in ALGORITHMS.values() for name in names)
WRONG: tuple[tuple[type[jwt.PyJWTError], str], ...] = (
    (jwt.ExpiredSignatureError, "has expired"),
    (jwt.ImmatureSignatureError, "is not valid yet"),
    (jwt.InvalidAudienceError, "is meant for another service"),
    (jwt.InvalidIssuerError, "comes from another issuer"),
    (jwt.MissingRequiredClaimError, f"lacks one of {', '.join(NEEDED)}"),
    (jwt.InvalidSignatureError, "has a signature that does not fit"),
)


class Verifier:
    """One an API process, shared by its threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._issuer = Issuer(settings.oidc_issuer, settings.oidc_jwks_url)

    def verify(self, token: str) -> Verified:
        """Raises Unauthorized, or Unavailable where the issuer's keys cannot be had."""
        claims = self._claims(token, self._issuer.key(_key_id(token)))
        return Verified(self._caller(claims), int(claims["exp"]) + LEEWAY_S - time())

    def _claims(self, token: str, key: SigningKey) -> dict[str, Any]:
        issuer = self._settings.oidc_issuer.rstrip("/")
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key.public,
                algorithms=list(key.algorithms),
                audience=self._settings.oidc_audience,
                issuer=[issuer, f"{issuer}/"],  # some end with a slash, and people forget it
                leeway=LEEWAY_S,
                options={"require": list(NEEDED), "enforce_minimum_key_length": True},
            )
        except jwt.PyJWTError as error:
            raise _refused(error) from None
        return claims

    def _caller(self, claims: dict[str, Any]) -> Caller:
        subject, name = claims["sub"], claims.get("preferred_username")
        if not is_name(subject):
            raise errors.Unauthorized("This token names its owner (sub) in a way that cannot be kept.")
        return Caller(
            owner=f"oidc:{subject}",
            name=name if is_name(name) else subject,
            role="admin" if self._is_admin(claims) else "user",
            **keys.limits_of(self._settings),
        )

    def _is_admin(self, claims: dict[str, Any]) -> bool:
        wanted, roles = self._settings.oidc_admin_role, _lead(claims, self._settings.oidc_role_claim)
        if isinstance(roles, str):
            roles = [roles, *roles.split()]  # as `scope` has them
        return bool(wanted) and isinstance(roles, list) and wanted in roles


def open_verifier(settings: Settings) -> Verifier | None:
    """None where OIDC_ISSUER is not set. Asks the issuer nothing yet: it may be away while we start."""
    return Verifier(settings) if settings.oidc_issuer else None


def _key_id(token: str) -> str | None:
    """Before anybody is asked anything: what can never be good costs us no fetch."""
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, RecursionError):
        raise errors.Unauthorized("This is neither an API key nor a token of the issuer of this service.") from None
    if header.get("alg") not in ASYMMETRIC:
        raise errors.Unauthorized("This token is not signed with a public-key algorithm, such as RS256 or ES256.")
    kid: str | None = header.get("kid")
    return kid


def _refused(error: jwt.PyJWTError) -> errors.Unauthorized:
    wrong = next((words for kind, words in WRONG if isinstance(error, kind)), "cannot be accepted")
    return errors.Unauthorized(f"This token {wrong}. Sign in again and send the new token.")


def _lead(claims: dict[str, Any], path: str) -> Any:
    """`realm_access.roles` leads into an object; a claim that is called so as a whole comes first."""
    if path in claims:
        return claims[path]
    found: Any = claims
    for name in path.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return found
