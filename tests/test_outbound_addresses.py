"""No address that leads anywhere but to the internet is called, however it is written."""

import socket
from collections.abc import Sequence
from ipaddress import ip_address, ip_network

import pytest
from pydantic import ValidationError

from config import Settings
from errors import AddressRefused
from outbound import Outbound, check_url, is_public, networks

NOT_PUBLIC = """
    0.0.0.0 10.1.2.3 100.64.0.1 100.100.100.200 127.0.0.1 127.9.9.9 169.254.169.254 172.16.0.1 172.31.255.255
    192.0.0.192
    192.0.2.1 192.88.99.1 192.168.1.1 198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1
    255.255.255.255 168.63.129.16
    :: ::1 ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:0:127.0.0.1 fe80::1 fe80::1%eth0 fec0::1 fc00::1
    fd00:ec2::254 ff02::1 ff0e::1 100::1 2001:db8::1 3fff::1 2001:2::1 2001:10::1 5f00::1
    2002:7f00:1:: 2002:a9fe:a9fe::1 64:ff9b::127.0.0.1 64:ff9b::a9fe:a9fe 64:ff9b:1::8.8.8.8
    2001:0:7f00:1::f7f7:f7f7 2001:0:808:808::80ff:fffe
    2606:4700::1111%eth0
""".split()
PUBLIC = """
    1.1.1.1 8.8.8.8 100.63.255.255 100.128.0.1 172.15.255.255 172.32.0.1 192.0.1.1 223.255.255.255
    2606:4700::1111 2a00:1450::1 2001:4860:4860::8888 ::ffff:8.8.8.8 64:ff9b::8.8.8.8 2002:808:808::1
    2001:0:808:808::f7f7:f7f7
""".split()

LITERALS = [f"http://[{text}]/" if ":" in text else f"http://{text}:8080/a" for text in NOT_PUBLIC]
REFUSED = [
    *LITERALS,
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0X7F.1/",
    "http://0177.0.0.1/",
    "http://017700000001/",
    "http://127.1/",
    "http://127.0.1/",
    "http://0/",
    "http://127.0.0.1./",
    "http://127.0.0.1../",
    "http://127.0.0.256/",
    "http://1.2.3.4.5/",
    "http://256/",
    "http://１２７.0.0.1/",  # noqa: RUF001 (full-width digits)
    "http://127。0。0。1/",
    "http://%31%32%37.0.0.1/",
    "http://127.0.0.1%2f.example.com/",
    "http://127.0.0.1%00.example.com/",
    "http://[::ffff:7f00:1]/",
    "http://[fe80::1%25eth0]/",
    "http://[::1",
    "http://[::1]x/",
    "http://[127.0.0.1]/",
    "http://localhost/",
    "http://LOCALHOST:5432/",
    "http://localhost./",
    "http://a.localhost/",
    "http://a.b.LocalHost.:80/",
    "file:///etc/passwd",
    "FILE:/etc/passwd",
    "ftp://example.com/a.wav",
    "gopher://example.com:70/_x",
    "data:audio/wav;base64,AAAA",
    "javascript:alert(1)",
    "s3://bucket/key",
    "ws://example.com/",
    "//example.com/a.wav",
    "/etc/passwd",
    "example.com/a.wav",
    "http:example.com/",
    "http:/example.com/",
    "http:///a.wav",
    "http://",
    "http://:80/",
    "http://?a",
    "",
    " ",
    "http://user:pass@example.com/",
    "http://user@example.com/",
    "http://@example.com/",
    "http://:@example.com/",
    "http://example.com@127.0.0.1/",
    "http://example.com:80@127.0.0.1:90/",
    "http://1.1.1.1\\@127.0.0.1/",
    "http://127.0.0.1\\@1.1.1.1/",
    "http:\\\\127.0.0.1/",
    "http://example.com\\.internal/",
    "http://example.com/a\\b",
    "http://1.1.1.1 @127.0.0.1/",
    "http://exa\tmple.com/",
    "http://example.com/\n",
    "http://example.com/\r\nX-Injected: 1",
    "\thttp://example.com/",
    "http://example.com/a b",
    "http://example.com/\x00",
    "http://example.com/\x7f",
    "http://example.com/\u200b",
    "http://example.com/\u2028",
    "http://example.com/\ud800",
    "http://example.com:0/",
    "http://example.com:65536/",
    "http://example.com:-1/",
    "http://example.com:80:80/",
    "http://example.com:http/",
    "http://example..com/",
    "http://.example.com/",
    "http://exa$mple.com/",
    f"http://{'a' * 64}.example.com/",
    f"http://{'a.' * 127}com/",
    "http://example.com/" + "a" * 1982,
]
ACCEPTED = [
    "http://example.com#@127.0.0.1/",  # all of it a fragment, to us and to the connection
    "http://example.com",
    "https://EXAMPLE.com:8443/a/b.wav?c=d&e=%20f#g",
    "https://example.com./a.wav",
    "https://example.com/é/👍.wav",
    "https://example.com/mail@home?to=@you",
    "https://bücher.example/",
    "https://xn--bcher-kva.example/",
    "https://my_bucket.example.com/",
    "https://localhost.example.com/",
    "https://mylocalhost/",
    "https://1.1.1.1/",
    "https://[2606:4700::1111]:8443/",
    "https://127.0.0.1.example.com/",
    "https://0x7f.example.com/",
    "http://example.com/" + "a" * 1981,
]


@pytest.fixture(scope="module")
def unopened() -> Outbound:
    def resolve(host: str) -> Sequence[str]:
        raise AssertionError(f"{host} was looked up")

    return Outbound(resolve=resolve)


@pytest.fixture
def no_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_: object) -> None:
        raise AssertionError("a connection was made")

    monkeypatch.setattr(socket, "create_connection", connect)


@pytest.mark.parametrize("text", NOT_PUBLIC)
def test_an_address_that_is_not_global_unicast_in_every_layer_is_not_public(text: str) -> None:
    assert not is_public(ip_address(text), ())


@pytest.mark.parametrize("text", PUBLIC)
def test_an_address_of_the_internet_is_public(text: str) -> None:
    assert is_public(ip_address(text), ())


@pytest.mark.parametrize(
    ("text", "opened"),
    [("127.0.0.1", True), ("127.0.0.2", False), ("::ffff:127.0.0.1", True), ("fd12::9", True), ("10.0.0.1", False)],
)
def test_what_the_operator_opens_is_open_and_nothing_beside_it(text: str, opened: bool) -> None:
    allow = networks(Settings(outbound_allow="127.0.0.1, fd12::1/16"))
    assert is_public(ip_address(text), allow) is opened


def test_a_network_that_is_none_is_refused_at_start() -> None:
    with pytest.raises(ValidationError):
        Settings(outbound_allow="10.0.0.0/8,inside")


@pytest.mark.parametrize("url", REFUSED)
def test_a_refused_address_is_refused_by_the_check_and_by_every_call(
    url: str, unopened: Outbound, no_connections: None
) -> None:
    with pytest.raises(AddressRefused):
        check_url(url, ())
    with pytest.raises(AddressRefused):
        unopened.post(url, body=b"", headers={}, timeout_s=1)
    with pytest.raises(AddressRefused):
        unopened.fetch(url, lambda _: None, max_bytes=1, on_progress=lambda *_: None)


@pytest.mark.parametrize("url", ACCEPTED)
def test_an_ordinary_address_passes_the_check(url: str) -> None:
    assert check_url(url, ()) is None


def test_the_check_lets_pass_what_the_operator_has_opened() -> None:
    allow = (ip_network("127.0.0.0/8"), ip_network("::1"))
    for url in ("http://127.0.0.1:8000/", "http://localhost/", "http://a.localhost/", "http://[::1]/"):
        assert check_url(url, allow) is None
    with pytest.raises(AddressRefused):
        check_url("http://10.0.0.1/", allow)


@pytest.mark.parametrize("url", REFUSED)
def test_a_refusal_says_what_to_do_and_repeats_nothing_of_the_address(url: str) -> None:
    with pytest.raises(AddressRefused) as caught:
        check_url(url, ())
    assert len(str(caught.value)) > 20
    assert not {"127.0.0.1", "pass@", "passwd", "169.254"} & set(str(caught.value).replace("/", " ").split())
