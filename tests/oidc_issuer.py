"""An OpenID Connect issuer on this machine that shows, changes and withholds its keys, and counts what it is asked."""

import json
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

AUDIENCE = "transcription"
DISCOVERY, JWKS = "/.well-known/openid-configuration", "/keys"
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
NEXT_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = ed25519.Ed25519PrivateKey.generate()
Private = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def shown(key: Private, kid: str | None, **more: str) -> dict[str, Any]:
    """The public half, as an issuer shows it."""
    kinds: dict[type, Any] = {
        rsa.RSAPrivateKey: jwt.algorithms.RSAAlgorithm,
        ec.EllipticCurvePrivateKey: jwt.algorithms.ECAlgorithm,
        ed25519.Ed25519PrivateKey: jwt.algorithms.OKPAlgorithm,
    }
    algorithm = next(kind for base, kind in kinds.items() if isinstance(key, base))
    values: dict[str, Any] = algorithm.to_jwk(key.public_key(), as_dict=True)
    values.pop("key_ops", None)
    return values | ({} if kid is None else {"kid": kid}) | more


class LocalIssuer:
    """Answers at `url`; counts what it is asked."""

    def __init__(self, port: int = 0) -> None:
        self.keys: list[dict[str, Any]] = [shown(RSA_KEY, "one", use="sig")]
        self.asked: Counter[str] = Counter()
        self.goes_on = Event()
        self.goes_on.set()
        self.says: dict[str, Any] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked[self.path] += 1
                outer.goes_on.wait(20)
                body = json.dumps(outer.answer(self.path)).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None: ...

        return Handler

    def answer(self, path: str) -> dict[str, Any]:
        if path == DISCOVERY:
            return {"issuer": self.url, "jwks_uri": f"{self.url}{JWKS}"} | self.says
        return {"keys": self.keys}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.goes_on.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def token(
    issuer: LocalIssuer, *, key: Any = RSA_KEY, kid: str | None = "one", algorithm: str = "RS256", **claims: Any
) -> str:
    now = int(time.time())
    whole = {"iss": issuer.url, "aud": AUDIENCE, "sub": "u-1", "iat": now, "exp": now + 300} | claims
    left = {name: value for name, value in whole.items() if value is not None}
    return jwt.encode(left, key, algorithm=algorithm, headers={} if kid is None else {"kid": kid})
