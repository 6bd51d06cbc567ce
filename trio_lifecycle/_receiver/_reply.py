"""What a callback is answered, and the limits that it is held to."""

from collections.abc import Callable
from typing import Final

from attrs import field, frozen

# A report is a few hundred bytes; a megabyte of JSON would block the loop for over 10 ms.
LONGEST_BODY_BYTES: Final = 65_536

# How long a client may take to send its request, and how long may be pondered whether it is the
# daemon. On loopback both take less than a millisecond.
REQUEST_LIMIT_S: Final = 5.0

# Enough for a sentence; what a client sends must not flood a log or an error.
_LONGEST_PROBLEM: Final = 200


def _shorten(problem: str) -> str:
    return problem if len(problem) <= _LONGEST_PROBLEM else f"{problem[:_LONGEST_PROBLEM]}..."


def _nobody_waits() -> None:
    pass


@frozen
class Reply:
    """What a server sends back.

    Attributes:
        status: The HTTP status; 200 means that the daemon's word was taken.
        problem: Why it was not taken; empty with status 200. Cut off if it is long.
        sent: To be called when the reply was sent, or can't be.
    """

    status: int
    problem: str = field(default="", converter=_shorten)
    sent: Callable[[], None] = field(default=_nobody_waits, repr=False, eq=False)

    @property
    def body(self) -> bytes:
        """The answer as JSON: ``{"ready": true}``, or false with the problem."""
        import json  # not at the top: few programs that import this package get callbacks

        said = {"ready": False, "problem": self.problem} if self.problem else {"ready": True}
        return json.dumps(said).encode()

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """The header fields that go with the body."""
        size = str(len(self.body)).encode()
        fields = [(b"content-type", b"application/json"), (b"content-length", size)]
        return [*fields, (b"allow", b"POST")] if self.status == 405 else fields
