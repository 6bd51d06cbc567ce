"""Where daemons report: which one-time tokens are expected, and what becomes of each callback."""

from trio_lifecycle._receiver._reply import LONGEST_BODY_BYTES, REQUEST_LIMIT_S, Reply
from trio_lifecycle._receiver._router import CallbackReceiver, Expectation
from trio_lifecycle._way_back_contract import Peer

__all__ = [
    "LONGEST_BODY_BYTES",
    "REQUEST_LIMIT_S",
    "CallbackReceiver",
    "Expectation",
    "Peer",
    "Reply",
]
