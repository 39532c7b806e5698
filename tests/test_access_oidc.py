"""Tokens of an OpenID Connect issuer, against a real one on this machine that shows, changes and withholds its keys."""

import base64
import hashlib
import hmac
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from threading import Thread
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from fastapi.testclient import TestClient

import errors
from access import issuer as issuer_module
from access.caller import Caller
from access.gate import Gate
from access.issuer import Issuer
from access.oidc import LEEWAY_S, open_verifier
from app import create_app
from config import Settings
from tests.callers import bearer, make_key
from tests.oidc_issuer import (
    AUDIENCE,
    DISCOVERY,
    EC_KEY,
    ED_KEY,
    JWKS,
    NEXT_KEY,
    RSA_KEY,
    LocalIssuer,
    Private,
    shown,
    token,
)
from tests.processes import until


@pytest.fixture
def issuer() -> Iterator[LocalIssuer]:
    with LocalIssuer() as server:
        yield server


@pytest.fixture
def trusting(settings: Settings, issuer: LocalIssuer) -> Settings:
    return settings.model_copy(update={"oidc_issuer": issuer.url, "oidc_audience": AUDIENCE})


def admitted(settings: Settings, token: str) -> Caller:
    return Gate(settings).admit(token)


def test_a_good_token_is_a_user_with_the_limits_of_the_settings(
    configure: Callable[..., Settings], trusting: Settings, issuer: LocalIssuer
) -> None:
    limited = trusting.model_copy(update={"rate_limit_per_minute": 9, "quota_audio_hours_per_day": 1.0})
    caller = admitted(limited, token(issuer, preferred_username="ada"))
    assert (caller.owner, caller.name, caller.role) == ("oidc:u-1", "ada", "user")
    assert (caller.rate_limit_per_minute, caller.quota_audio_s_per_day) == (9, 3600)
    assert admitted(trusting, token(issuer)).name == "u-1"


@pytest.mark.parametrize(
    ("claim", "claims", "role"),
    [
        ("roles", {"roles": ["user", "admin"]}, "admin"),
        ("roles", {"roles": "admin"}, "admin"),
        ("roles", {"roles": ["administrator"]}, "user"),
        ("roles", {"roles": "not-admin"}, "user"),
        ("roles", {"roles": {"admin": True}}, "user"),
        ("roles", {}, "user"),
        ("scope", {"scope": "openid admin"}, "admin"),
        ("realm_access.roles", {"realm_access": {"roles": ["admin"]}}, "admin"),
        ("realm_access.roles", {"realm_access": "admin"}, "user"),
        ("realm_access.roles", {"roles": ["admin"]}, "user"),
        ("https://example.com/roles", {"https://example.com/roles": ["admin"]}, "admin"),
    ],
)
def test_the_role_is_read_from_the_claim_of_the_settings(
    trusting: Settings, issuer: LocalIssuer, claim: str, claims: dict[str, Any], role: str
) -> None:
    told = trusting.model_copy(update={"oidc_role_claim": claim})
    assert admitted(told, token(issuer, **claims)).role == role


def test_without_a_name_for_the_role_nobody_is_an_admin(trusting: Settings, issuer: LocalIssuer) -> None:
    told = trusting.model_copy(update={"oidc_admin_role": ""})
    assert admitted(told, token(issuer, roles=["", "admin"])).role == "user"


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"aud": "another"}, "another service"),
        ({"aud": ["another", "third"]}, "another service"),
        ({"aud": None}, "lacks one of"),
        ({"iss": "https://evil.example"}, "another issuer"),
        ({"iss": None}, "lacks one of"),
        ({"exp": 1_000_000_000}, "has expired"),
        ({"exp": None}, "lacks one of"),
        ({"exp": "soon"}, "cannot be accepted"),
        ({"nbf": 4_000_000_000}, "not valid yet"),
        ({"iat": 4_000_000_000}, "not valid yet"),
        ({"sub": None}, "lacks one of"),
        ({"sub": ""}, "cannot be kept"),
        ({"sub": "nul\0"}, "cannot be kept"),
        ({"sub": "half \ud800"}, "cannot be kept"),
        ({"sub": "s" * 256}, "cannot be kept"),
        ({"sub": 7}, "cannot be accepted"),
    ],
)
def test_a_token_that_is_not_good_here_and_now_is_refused(
    trusting: Settings, issuer: LocalIssuer, claims: dict[str, Any], why: str
) -> None:
    with pytest.raises(errors.Unauthorized, match=why) as refused:
        admitted(trusting, token(issuer, **claims))
    assert issuer.url not in str(refused.value)


def test_clocks_may_differ_by_a_minute_and_no_more(trusting: Settings, issuer: LocalIssuer) -> None:
    now = int(time.time())
    assert admitted(trusting, token(issuer, exp=now - LEEWAY_S + 10)).owner == "oidc:u-1"
    assert admitted(trusting, token(issuer, nbf=now + LEEWAY_S - 10, iat=now + LEEWAY_S - 10)).owner == "oidc:u-1"
    with pytest.raises(errors.Unauthorized, match="expired"):
        admitted(trusting, token(issuer, exp=now - LEEWAY_S - 10))


def test_a_token_is_not_remembered_beyond_its_end(trusting: Settings, issuer: LocalIssuer) -> None:
    gate, short = Gate(trusting), token(issuer, exp=int(time.time()) - LEEWAY_S + 2)
    gate.admit(short)
    until(lambda: gate.recall(short) is None, within_s=4)  # REMEMBERED_S is 5
    with pytest.raises(errors.Unauthorized, match="expired"):
        gate.admit(short)


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (RSA_KEY, "RS512"), (RSA_KEY, "PS256"), (EC_KEY, "ES256"), (ED_KEY, "EdDSA"),
    ],
)  # fmt: skip
def test_every_usual_signature_is_understood(
    trusting: Settings, issuer: LocalIssuer, key: Private, algorithm: str
) -> None:
    issuer.keys = [shown(key, "k")]
    assert admitted(trusting, token(issuer, key=key, kid="k", algorithm=algorithm)).role == "user"


def test_a_key_serves_only_the_algorithm_that_it_is_shown_for(trusting: Settings, issuer: LocalIssuer) -> None:
    issuer.keys = [shown(RSA_KEY, "one", alg="RS256")]
    assert admitted(trusting, token(issuer)).role == "user"
    with pytest.raises(errors.Unauthorized):
        admitted(trusting, token(issuer, algorithm="PS256"))


def _part(value: dict[str, Any]) -> bytes:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")


def forged(issuer: LocalIssuer, header: dict[str, Any], secret: bytes = b"") -> str:
    body = jwt.decode(token(issuer, roles=["admin"]), options={"verify_signature": False})
    signed = _part(header | {"kid": "one"}) + b"." + _part(body)
    signature = base64.urlsafe_b64encode(hmac.digest(secret, signed, hashlib.sha256)).rstrip(b"=") if secret else b""
    return (signed + b"." + signature).decode()


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "HS256", "HS512", "", "RS257"])
def test_unsigned_tokens_and_public_keys_taken_for_secrets_are_refused(
    trusting: Settings, issuer: LocalIssuer, algorithm: str
) -> None:
    public = RSA_KEY.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    for secret in (b"", public, public.strip()):
        with pytest.raises(errors.Unauthorized):
            admitted(trusting, forged(issuer, {"alg": algorithm}, secret))
    assert issuer.asked == Counter()  # such a token does not cost us a fetch


def test_a_secret_key_among_the_issuers_keys_is_not_used(trusting: Settings, issuer: LocalIssuer) -> None:
    secret = b"0123456789abcdef0123456789abcdef"
    encoded = base64.urlsafe_b64encode(secret).rstrip(b"=").decode()
    issuer.keys.append({"kty": "oct", "k": encoded, "kid": "shared", "alg": "HS256"})
    with pytest.raises(errors.Unauthorized):
        admitted(trusting, token(issuer, key=secret, kid="shared", algorithm="HS256"))


def test_a_signature_by_a_stranger_is_refused(trusting: Settings, issuer: LocalIssuer) -> None:
    with pytest.raises(errors.Unauthorized, match="signature"):
        admitted(trusting, token(issuer, key=NEXT_KEY))
    head, body, signature = token(issuer).split(".")
    other = _part(jwt.decode(f"{head}.{body}.{signature}", options={"verify_signature": False}) | {"sub": "boss"})
    with pytest.raises(errors.Unauthorized, match="signature"):
        admitted(trusting, f"{head}.{other.decode()}.{signature}")


@pytest.mark.parametrize("nonsense", ["x", "a.b.c", "...", "é.é.é", "eyJhbGciOiJSUzI1NiJ9..", "Bearer x", "[" * 9000])
def test_what_is_no_token_is_refused(trusting: Settings, nonsense: str) -> None:
    with pytest.raises(errors.Unauthorized):
        admitted(trusting, nonsense)


def test_a_header_of_endless_brackets_is_refused(trusting: Settings) -> None:
    deep = base64.urlsafe_b64encode(b"[" * 9000).decode()
    with pytest.raises(errors.Unauthorized):
        admitted(trusting, f"{deep}.e30.x")


def test_a_token_without_a_key_id_fits_an_issuer_with_one_key(trusting: Settings, issuer: LocalIssuer) -> None:
    assert admitted(trusting, token(issuer, kid=None)).role == "user"
    issuer.keys.append(shown(NEXT_KEY, "two"))
    with pytest.raises(errors.Unauthorized):
        admitted(trusting, token(issuer, kid=None))


def test_keys_that_we_do_not_understand_do_not_spoil_the_others(trusting: Settings, issuer: LocalIssuer) -> None:
    odd: list[Any] = [
        {"kty": "RSA", "kid": "half"}, {"kty": "XYZ"}, {}, "text", shown(NEXT_KEY, "enc", use="enc"),
    ]  # fmt: skip
    issuer.keys[:0] = odd
    assert admitted(trusting, token(issuer)).role == "user"
    with pytest.raises(errors.Unauthorized):
        admitted(trusting, token(issuer, key=NEXT_KEY, kid="enc"))


def test_a_new_key_of_the_issuer_is_fetched_when_a_token_names_it(
    trusting: Settings, issuer: LocalIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuer_module, "COOLDOWN_S", 0.3)
    gate = Gate(trusting)
    gate.admit(token(issuer))
    issuer.keys = [shown(NEXT_KEY, "two")]
    rotated = token(issuer, key=NEXT_KEY, kid="two")
    assert until(lambda: _role(gate, rotated), within_s=5) == "user"
    with pytest.raises(errors.Unauthorized):  # the old key is gone with its set
        gate.admit(token(issuer, sub="u-2"))


def _role(gate: Gate, shown_token: str) -> str | None:
    try:
        return gate.admit(shown_token).role
    except errors.ServiceError:
        return None


def test_made_up_key_ids_do_not_make_us_hammer_the_issuer(trusting: Settings, issuer: LocalIssuer) -> None:
    gate = Gate(trusting)
    gate.admit(token(issuer))
    threads = [Thread(target=lambda: [_role(gate, token(issuer, kid=f"k{n}")) for n in range(25)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert issuer.asked == {DISCOVERY: 1, JWKS: 1}
    assert gate.admit(token(issuer, sub="u-2")).role == "user"


def test_an_issuer_that_is_away_at_the_start_is_asked_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuer_module, "AFTER_FAILURE_S", 0.1)
    with LocalIssuer() as gone:
        port = gone.port
    gate = Gate(settings.model_copy(update={"oidc_issuer": gone.url, "oidc_audience": AUDIENCE}))
    with pytest.raises(errors.Unavailable, match="cannot be asked"):
        gate.admit(token(gone))
    with LocalIssuer(port) as back:
        assert until(lambda: _role(gate, token(back)), within_s=10) == "user"


def test_an_issuer_that_goes_away_later_is_not_missed_for_a_while(
    trusting: Settings, issuer: LocalIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuer_module, "FRESH_S", 0.0)
    monkeypatch.setattr(issuer_module, "COOLDOWN_S", 0.0)
    asked = Issuer(issuer.url)
    asked.key("one")
    issuer.says = {"issuer": "https://somebody.else"}  # it answers, but not as it should
    assert asked.key("one") is not None
    monkeypatch.setattr(issuer_module, "STALE_S", 0.0)
    with pytest.raises(errors.Unavailable):
        asked.key("one")


def test_an_issuer_that_hangs_holds_up_one_thread_and_no_others(
    trusting: Settings, issuer: LocalIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuer_module, "FETCH_TIMEOUT_S", 0.5)
    monkeypatch.setattr(issuer_module, "WAIT_S", 0.1)
    issuer.goes_on.clear()
    gate, took = Gate(trusting), []

    def ask() -> None:
        started = time.monotonic()
        assert _role(gate, token(issuer)) is None
        took.append(time.monotonic() - started)

    threads = [Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(seconds > 0.4 for seconds in took) == 1
    assert issuer.asked[DISCOVERY] == 1


@pytest.mark.parametrize(
    "says", [{"issuer": "https://evil.example"}, {"jwks_uri": None}, {"jwks_uri": "file:///etc/passwd"}]
)
def test_a_discovery_document_that_does_not_fit_is_not_followed(
    trusting: Settings, issuer: LocalIssuer, says: dict[str, Any]
) -> None:
    issuer.says = says
    with pytest.raises(errors.Unavailable):
        admitted(trusting, token(issuer))
    assert issuer.asked[JWKS] == 0


def test_where_the_settings_say_where_the_keys_are_nothing_is_discovered(
    trusting: Settings, issuer: LocalIssuer
) -> None:
    told = trusting.model_copy(update={"oidc_jwks_url": f"{issuer.url}/elsewhere"})
    assert admitted(told, token(issuer)).role == "user"
    assert issuer.asked == {"/elsewhere": 1}


def test_a_slash_at_the_end_of_the_issuer_makes_no_difference(trusting: Settings, issuer: LocalIssuer) -> None:
    told = trusting.model_copy(update={"oidc_issuer": f"{issuer.url}/"})
    assert admitted(told, token(issuer)).role == "user"
    assert admitted(told, token(issuer, iss=f"{issuer.url}/")).role == "user"


def test_without_an_issuer_there_is_no_verifier(settings: Settings) -> None:
    assert open_verifier(settings) is None


def test_keys_and_tokens_work_side_by_side_over_http(trusting: Settings, issuer: LocalIssuer) -> None:
    _, key = make_key(trusting, role="admin")
    with TestClient(create_app(trusting), base_url="http://127.0.0.1") as client:

        def status(path: str, shown_token: str = "") -> int:
            return client.get(path, headers=bearer(shown_token) if shown_token else {}).status_code

        assert (status("/admin/keys", key), status("/jobs/", token(issuer))) == (200, 200)
        assert (status("/admin/keys", token(issuer)), status("/admin/keys", token(issuer, roles=["admin"]))) == (
            403,
            200,
        )
        assert (status("/jobs/"), status("/jobs/", "tk_wrong"), status("/jobs/", token(issuer, aud="x"))) == (401,) * 3
