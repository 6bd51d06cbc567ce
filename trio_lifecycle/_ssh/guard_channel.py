"""The guard's end of its session: JSON lines in, JSON lines and raw bytes out, and no waiting.

A part of the program in ``guard.py``: for Python from 3.7 on, with nothing of the package but other
parts.
"""

from __future__ import annotations

import json
import os
import time

from trio_lifecycle.spawner._kernel import LONGEST_POLL_S

TYPE_CHECKING = False
if TYPE_CHECKING:
    import select
    from collections.abc import Iterator
    from typing import Any

STDIN, STDOUT = 0, 1
READ_BYTES = 65_536
# How much may wait for a slow reader before no more is read of what daemons write. All that the
# guard says comes behind it.
MOST_UNSENT_BYTES = 1 << 17
# No load makes one turn of a loop so much longer than it was to be.
STANDSTILL_S = 1.0


class Attention:
    """How a process waits for news, and notices that it or its machine stood still.

    Frozen or swapping, a machine does not pass on what should have been heard in that time either,
    and who waited for that may be the first to go on.
    """

    def __init__(self) -> None:
        self.looked_at = time.monotonic()

    def wait(self, poll: select.poll, seconds: float) -> tuple[dict[int, int], float]:
        """Wait at most so long; give the news, and for how many seconds all stood still."""
        seconds = min(max(0.0, seconds), LONGEST_POLL_S)
        news = dict(poll.poll(seconds * 1000 + 1))
        before, self.looked_at = self.looked_at, time.monotonic()
        late_s = self.looked_at - before - seconds
        return news, late_s if late_s > STANDSTILL_S else 0.0


def touch(pulse: int) -> None:
    """Show the outer process that this one is well."""
    try:
        os.write(pulse, b".")
    except OSError:  # it does not look, and then there is enough to see
        pass


class Channel:
    """The standard input and output, which must not block.

    Attributes:
        is_over: True when the application is gone, or asks for no more.
        heard_at: When it last gave a sign of life.
    """

    def __init__(self) -> None:
        self.unsent = bytearray()
        self.unread = bytearray()
        self.is_over = False
        self.heard_at = time.monotonic()

    @property
    def is_full(self) -> bool:
        """True while the application takes in less than there is."""
        return len(self.unsent) >= MOST_UNSENT_BYTES

    def say(self, message: dict[str, Any], raw: bytes = b"") -> None:
        """Say something as soon as it is taken."""
        self.unsent += json.dumps(message).encode() + b"\n" + raw

    def send_on(self) -> None:
        """Write what is taken now."""
        while self.unsent:
            try:
                count = os.write(STDOUT, self.unsent[:READ_BYTES])
            except BlockingIOError:
                return
            except OSError:
                self.is_over = True
                return
            del self.unsent[:count]

    def hear(self) -> Iterator[dict[str, Any]]:
        """Read, and give what is asked; an end of the input is the end of all."""
        try:
            chunk = os.read(STDIN, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        self.is_over = self.is_over or not chunk
        self.heard_at = time.monotonic()
        before = len(self.unread)
        self.unread += chunk
        end = self.unread.find(b"\n", before)
        while end >= 0 and not self.is_over:
            line = self.unread[:end].decode()
            del self.unread[: end + 1]
            yield json.loads(line)
            end = self.unread.find(b"\n")
