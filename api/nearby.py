"""Whom the service answers while no key is needed: programs and pages of its own machine. Looks at headers only."""

import re
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

import errors
from config import Settings, is_loopback, split_list

# What proxies, tunnels and content networks add to say for whom they ask
FORWARDING = re.compile(
    r"forwarded|via|x-forwarded.*|x-original-.*|x-real-ip|x-client-ip|x-cluster-client-ip|x-remote-ip|x-scheme"
    r"|true-client-ip|client-ip|cdn-loop|cf-.*|fastly-.*|fly-.*|x-amz-cf-.*|x-amzn-.*|x-azure-.*|x-appengine-.*"
    r"|x-envoy-.*|x-arr-.*|x-varnish|x-proxyuser-ip|proxy-.*|tailscale-.*|ngrok-.*"
)
BEHIND_A_PROXY = (  # its beginning fits the close frame of a WebSocket
    "Behind a proxy this service needs a key. Create one: python -m admin keys create NAME --role admin. "
    "Then send it as 'Authorization: Bearer KEY'. Without a key only programs on its own machine are answered, "
    "at http://127.0.0.1."
)
FROM_ELSEWHERE = (
    "Without a key this service answers only programs on its own machine, at http://127.0.0.1. "
    "Create one: python -m admin keys create NAME."
)


def refuse_all_but_neighbours(request: HTTPConnection, settings: Settings) -> None:
    """Raises Forbidden for what came through a proxy, and for pages of elsewhere in a browser on this machine.

    A page must not use the open door across sites, nor by a name that its owner has pointed at this machine (DNS
    rebinding). HTTP/1.0 counts as a proxy: nginx speaks it unless told otherwise, and may add no header.
    """
    headers = request.headers
    if request.scope.get("http_version") == "1.0" or any(map(FORWARDING.fullmatch, headers)):
        raise errors.Forbidden(BEHIND_A_PROXY)
    host, origin = headers.get("host", ""), headers.get("origin", "null")
    is_expected = bool({origin, "*"} & {"null", *split_list(settings.cors_origins)}) or _is_here(origin)
    if not _is_here(f"//{host}") or headers.get("sec-fetch-site") == "cross-site" or not is_expected:
        raise errors.Forbidden(FROM_ELSEWHERE)


def _is_here(address: str) -> bool:
    try:
        return is_loopback(urlsplit(address).hostname or "")
    except ValueError:  # half of an IPv6 address
        return False
