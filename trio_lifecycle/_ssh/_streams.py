"""What others hold of a channel: a session, or a stream."""

from collections.abc import Iterator
from contextlib import contextmanager

import trio
from trio.abc import HalfCloseableStream

from trio_lifecycle._ssh._flow import Flow
from trio_lifecycle._ssh._session import LostError, Session


class ChannelSession(Session):
    """A command on another machine, by a channel of its own."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow

    async def send(self, data: bytes) -> None:
        """Send to its standard input; returns when there is room for more."""
        await self._flow.send(data)

    async def receive(self) -> bytes:
        """Give what it has written since; nothing when it has closed its output."""
        return await self._flow.receive()

    async def wait_end(self) -> int | None:
        """Wait until the command has ended; None when a signal has ended it."""
        return await self._flow.wait_end()

    def complaints(self) -> str:
        """Give the end of what it wrote to its standard error."""
        return self._flow.complaints()

    def close(self) -> None:
        """Close the channel."""
        self._flow.close()


class ChannelStream(HalfCloseableStream):
    """A connection that another machine has made for us, or to us."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._is_sending = False
        self._is_receiving = False
        self._has_sent_end = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of it."""
        with self._sending():
            await self._flow.send(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until there is room for more."""
        with self._sending():
            await self._flow.wait_room()

    async def send_eof(self) -> None:
        """Say that nothing more will be sent; again is fine."""
        if self._has_sent_end and not self._flow.is_closed:
            await trio.lowlevel.checkpoint()
            return
        with self._sending():
            await trio.lowlevel.checkpoint()
            self._flow.send_end()
            self._has_sent_end = True

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Give what has come since; nothing at the end."""
        if max_bytes is not None:
            if not isinstance(max_bytes, int):
                raise TypeError("max_bytes must be a number")
            if max_bytes < 1:
                raise ValueError("max_bytes must be more than 0")
        if self._is_receiving:
            raise trio.BusyResourceError("another task is receiving from this stream")
        self._is_receiving = True
        try:
            with self._troubles():
                return await self._flow.receive(max_bytes)
        finally:
            self._is_receiving = False

    async def aclose(self) -> None:
        """Close it; what was sent still goes out."""
        self._flow.close()
        await trio.lowlevel.checkpoint()

    @contextmanager
    def _sending(self) -> Iterator[None]:
        if self._is_sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        if self._has_sent_end or self._flow.is_closed:
            raise trio.ClosedResourceError("this stream was closed for sending")
        self._is_sending = True
        try:
            with self._troubles():
                yield
        finally:
            self._is_sending = False

    @contextmanager
    def _troubles(self) -> Iterator[None]:
        if self._flow.is_closed:
            raise trio.ClosedResourceError("this stream was closed")
        try:
            yield
        except LostError as error:
            if self._flow.is_closed:
                raise trio.ClosedResourceError("this stream was closed by another task") from None
            raise trio.BrokenResourceError(str(error)) from error
