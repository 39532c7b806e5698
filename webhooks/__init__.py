"""Webhooks by the Standard Webhooks specification: what has become final is told to who asked for it, at least once.

The row is the delivery; its doorbell may be lost or ring twice. Nothing here knows a queue or an API key.
"""

from webhooks.announcement import announce, announce_batch

__all__ = ["announce", "announce_batch"]
