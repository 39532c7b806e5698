"""Names, proxies and TLS: what was judged is what is called, and the other end is who it claims to be."""

import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from config import Settings
from errors import AddressRefused, FetchFailed
from outbound import Outbound, networks, open_outbound
from tests.far_server import (
    CONTENT,
    LOOPBACK,
    FarServer,
    Play,
    far_server,
    fetch,
    name_that_leads_to,
    post,
    redirect,
    serve_content,
)

PROXIES = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


@pytest.fixture(scope="module")
def outbound() -> Outbound:
    return Outbound(LOOPBACK, resume_wait_s=0.001)


def test_a_name_that_changes_its_address_is_judged_and_called_by_the_same_answer() -> None:
    rebinding = Outbound(
        networks(Settings(outbound_allow="127.0.0.2")), resolve=name_that_leads_to(["127.0.0.2"], ["127.0.0.1"])
    )
    with (
        far_server(serve_content, host="127.0.0.2") as public,
        far_server(serve_content, host="127.0.0.1", port=public.port) as private,
    ):
        url = f"http://recordings.example:{public.port}/talk.wav"
        assert fetch(rebinding, url).size_bytes == len(CONTENT)
        assert public.headers("Host") == [f"recordings.example:{public.port}"]
        with pytest.raises(AddressRefused):
            fetch(rebinding, url)
        with pytest.raises(AddressRefused):
            post(rebinding, url)
        assert len(public.seen) == 1
        assert not private.seen


@pytest.mark.parametrize(
    "addresses", [["10.0.0.1"], ["127.0.0.1", "10.0.0.1"], ["fe80::1%2", "127.0.0.1"], ["127.0.0.1", "::ffff:a00:1"]]
)
def test_a_name_with_one_private_address_is_refused(addresses: list[str]) -> None:
    mixed = Outbound(LOOPBACK, resolve=name_that_leads_to(addresses))
    with far_server(serve_content) as server:
        url = f"http://recordings.example:{server.port}/"
        for call in (fetch, post):
            with pytest.raises(AddressRefused):
                call(mixed, url)
        assert not server.seen


def test_the_next_address_is_called_where_one_does_not_answer() -> None:
    two = Outbound(LOOPBACK, resolve=name_that_leads_to(["127.0.0.3", "127.0.0.1"]))
    with far_server(serve_content) as server:
        assert post(two, f"http://recordings.example:{server.port}/").status == 200


def test_the_systems_resolver_is_asked_by_default() -> None:
    here = open_outbound(Settings(outbound_allow="127.0.0.0/8,::1"))
    with far_server(serve_content) as server:
        assert fetch(here, f"http://localhost:{server.port}/").size_bytes == len(CONTENT)


def test_a_name_that_nobody_knows_fails_for_now() -> None:
    def resolve(host: str) -> Sequence[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    for call in (fetch, post):
        with pytest.raises(FetchFailed, match="name is not known"):
            call(Outbound(resolve=resolve), "http://recordings.example/")


def test_proxies_of_the_environment_are_not_asked(outbound: Outbound, monkeypatch: pytest.MonkeyPatch) -> None:
    with far_server(serve_content) as server, far_server(serve_content) as proxy:
        for name in PROXIES:
            monkeypatch.setenv(name, proxy.url(""))
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        opened = Outbound(LOOPBACK, resolve=name_that_leads_to(["127.0.0.1"]))
        assert fetch(opened, f"http://recordings.example:{server.port}/").size_bytes == len(CONTENT)
        assert post(opened, f"http://recordings.example:{server.port}/").status == 200
        assert not proxy.seen


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of recordings.example, signed by itself, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "recordings.example")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("recordings.example")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    plain = serialization.NoEncryption()
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


@contextmanager
def tls_server(play: Play, certificate: Path) -> Iterator[FarServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with far_server(play, tls=context) as server:
        yield server


def trusting(certificate: Path) -> Outbound:
    context = ssl.create_default_context(cafile=str(certificate))
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # from Python 3.13 on: ours is no authority's
    return Outbound(LOOPBACK, tls=context, resolve=name_that_leads_to(["127.0.0.1"]))


def test_tls_is_spoken_with_the_name_though_the_address_is_called(certificate: Path) -> None:
    with tls_server(serve_content, certificate) as server:
        url = f"https://recordings.example:{server.port}/talk.wav"
        assert fetch(trusting(certificate), url).size_bytes == len(CONTENT)
        assert post(trusting(certificate), url).status == 200


def test_a_certificate_that_nobody_trusts_fails(certificate: Path) -> None:
    stranger = Outbound(LOOPBACK, resolve=name_that_leads_to(["127.0.0.1"]))
    with tls_server(serve_content, certificate) as server:
        for call in (fetch, post):
            with pytest.raises(FetchFailed, match="certificate"):
                call(stranger, f"https://recordings.example:{server.port}/")
        assert not server.seen


@pytest.mark.parametrize("host", ["other.example", "127.0.0.1"])
def test_a_certificate_of_another_name_fails(certificate: Path, host: str) -> None:
    with tls_server(serve_content, certificate) as server:
        with pytest.raises(FetchFailed, match="certificate"):
            post(trusting(certificate), f"https://{host}:{server.port}/")
        assert not server.seen


def test_a_server_that_does_not_speak_tls_fails(certificate: Path) -> None:
    with far_server(serve_content) as server, pytest.raises(FetchFailed):
        post(trusting(certificate), f"https://recordings.example:{server.port}/")


def test_a_redirect_from_https_to_http_is_refused(certificate: Path) -> None:
    with (
        far_server(serve_content) as plain,
        tls_server(redirect(plain.url()), certificate) as server,
        pytest.raises(AddressRefused, match="https to http"),
    ):
        fetch(trusting(certificate), f"https://recordings.example:{server.port}/")
    assert not plain.seen
