"""The only door to an address that a caller gave: which ones we call, for how long, and how much we take."""

from config import Settings
from outbound.addresses import Network, check_url, is_public, networks
from outbound.calls import Answer, Outbound
from outbound.download import Fetched

__all__ = ["Answer", "Fetched", "Network", "Outbound", "check_url", "is_public", "networks", "open_outbound"]


def open_outbound(settings: Settings) -> Outbound:
    """Opens no connection; one is enough for a process."""
    return Outbound(networks(settings))
