"""The events of a program's daemons, for whoever wants to see them."""

import json
from collections import deque
from collections.abc import AsyncGenerator
from itertools import islice
from typing import Any, Final

import trio

from trio_lifecycle import Event

# A service that runs for weeks must not keep every event.
_MOST_KEPT: Final = 5_000


class Hub:
    """Keeps events, and passes each on to all who listen.

    ``hub.observe`` is an observer. Whoever listens first gets what is kept.

    Args:
        by: What this program is called.
    """

    def __init__(self, by: str) -> None:
        self.by = by
        self._kept: deque[dict[str, Any]] = deque(maxlen=_MOST_KEPT)
        self._count = 0
        self._listeners: set[trio.MemorySendChannel[dict[str, Any]]] = set()
        self._closed = False

    def observe(self, event: Event) -> None:
        """Take an event of a daemon that this program has started."""
        self.pass_on({"by": self.by} | event.as_dict())

    def pass_on(self, entry: dict[str, Any]) -> None:
        """Take an entry as it is, from another program's hub say."""
        self._kept.append(entry)
        self._count += 1
        for listener in list(self._listeners):
            try:
                listener.send_nowait(entry)
            except (trio.WouldBlock, trio.BrokenResourceError):
                # Who does not read is cut off, and may come again.
                self._drop(listener)

    def close(self) -> None:
        """Say that nothing comes any more: whoever listens reads to the end and is done."""
        self._closed = True
        for listener in list(self._listeners):
            self._drop(listener)

    async def listen(self, after: int = 0) -> AsyncGenerator[bytes]:
        """Give what is kept, and then each event as it comes: a line of JSON each.

        Args:
            after: How many of the first were heard before.
        """
        send, receive = trio.open_memory_channel[dict[str, Any]](2 * _MOST_KEPT)
        for entry in islice(self._kept, max(0, after - self._count + len(self._kept)), None):
            send.send_nowait(entry)
        self._listeners.add(send)
        if self._closed:
            self._drop(send)
        try:
            async for entry in receive:
                yield f"{json.dumps(entry)}\n".encode()
        finally:
            self._drop(send)
            receive.close()

    def _drop(self, listener: trio.MemorySendChannel[dict[str, Any]]) -> None:
        self._listeners.discard(listener)
        listener.close()
