"""The two directions of one channel: fed by what speaks SSH, emptied by Trio tasks."""

from collections.abc import Callable
from typing import Any, Final

import trio

from trio_lifecycle._ssh._bridge import Bridge
from trio_lifecycle._ssh._session import LostError

# What nobody has received yet; from here on the other machine is made to wait.
_MOST_WAITING_BYTES: Final = 256 * 1024

# What is handed over at once, so that a cancellation comes through in between.
_PIECE_BYTES: Final = 32 * 1024

_COMPLAINTS_BYTES: Final = 4096

_STDERR: Final = 1  # RFC 4254 section 5.2, SSH_EXTENDED_DATA_STDERR


class Flow:
    """What one channel carries; its public names without a docstring are asyncssh's callbacks.

    Args:
        bridge: Where the channel lives.
        why_lost: Says why the connection is gone, if it is.
        released: Called once, when the channel is gone or did not come to be.
        made: Called when the channel stands.
    """

    def __init__(
        self,
        bridge: Bridge,
        why_lost: Callable[[], str | None],
        released: Callable[["Flow"], None] | None = None,
        made: Callable[["Flow"], None] | None = None,
    ) -> None:
        self._bridge = bridge
        self._why_lost = why_lost
        self._released = released
        self._made = made
        self._channel: Any = None
        self._news = trio.lowlevel.ParkingLot()
        self._inbox = bytearray()
        self._complaints = bytearray()
        self._is_full = False
        self._is_held = False
        self._is_at_end = False
        self._failure: Exception | None = None
        self.is_gone = False
        self.is_closed = False
        self.has_ended = False
        self.exit_status: int | None = None

    def connection_made(self, channel: Any) -> None:
        self._channel = channel
        if self._made is not None:
            self._made(self)

    def session_started(self) -> None:
        """Nothing is to be done."""

    def data_received(self, data: bytes, datatype: int | None) -> None:
        if datatype == _STDERR:
            self._complaints += data
            del self._complaints[:-_COMPLAINTS_BYTES]
            return
        self._inbox += data
        if len(self._inbox) >= _MOST_WAITING_BYTES and not self._is_held:
            self._is_held = True
            self._channel.pause_reading()
        self._news.unpark_all()

    def eof_received(self) -> bool:
        self._is_at_end = True
        self._news.unpark_all()
        # Our own direction stays open.
        return True

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False
        self._news.unpark_all()

    def xon_xoff_requested(self, client_can_do: bool) -> None:
        """Nothing is to be done."""

    def exit_status_received(self, status: int) -> None:
        self.exit_status = status
        self.has_ended = True
        self._news.unpark_all()

    def exit_signal_received(self, *_about: object) -> None:
        self.has_ended = True
        self._news.unpark_all()

    def connection_lost(self, exc: Exception | None) -> None:
        self._failure = exc
        self.is_gone = True
        self.release()
        self._news.unpark_all()

    def release(self) -> None:
        """Say that the channel is gone, if that was not said before."""
        released, self._released = self._released, None
        if released is not None:
            released(self)

    def close(self) -> None:
        """Close the channel in both directions; what was sent still goes out."""
        self.is_closed = True
        if self._channel is not None and not self.is_gone:
            with self._bridge.entered():
                self._channel.close()
        self._inbox.clear()
        self._news.unpark_all()

    def opened_late(self, opened: object) -> None:
        """Take back a channel that nobody waits for any more, or that failed to open."""
        if opened is None:
            self.release()
        else:
            self.close()

    def lost(self) -> str | None:
        """Say why the connection is gone under it; None while it is there, or was closed well."""
        if not self.is_gone:
            return None
        why = self._why_lost()
        if why is None and self._failure is not None:
            why = f"the channel has failed: {self._failure}"
        return why

    def complaints(self) -> str:
        """Give the end of what came on standard error."""
        return self._complaints.decode(errors="backslashreplace")

    async def receive(self, most: int | None = None) -> bytes:
        """Give what has come since; nothing at its end.

        Raises:
            LostError: The connection is gone, or the channel was closed here.
        """
        # Here and not below: what was taken out must not be lost to a cancellation.
        await trio.lowlevel.checkpoint()
        while not (self._inbox or self._is_at_end or self.is_gone or self.is_closed):
            await self._news.park()
        data = bytes(self._inbox[:most])
        del self._inbox[:most]
        if self._is_held and len(self._inbox) < _MOST_WAITING_BYTES // 2:
            self._is_held = False
            with self._bridge.entered():
                self._channel.resume_reading()
        if not data and (self.is_closed or not self._is_at_end):
            self._check()
        return data

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """Send; returns when there is room for more.

        Raises:
            LostError: The connection is gone, or nobody reads any more.
        """
        with memoryview(data) as view, view.cast("B") as octets:
            for start in range(0, len(octets), _PIECE_BYTES):
                await self.wait_room()
                self._write(bytes(octets[start : start + _PIECE_BYTES]))
        await self.wait_room()

    async def wait_room(self) -> None:
        """Wait until there is room for more.

        Raises:
            LostError: The connection is gone, or nobody reads any more.
        """
        await trio.lowlevel.checkpoint()
        while self._is_full and not (self.is_gone or self.is_closed):
            await self._news.park()
        self._check()
        if self.is_gone:
            raise LostError("the other side has closed the channel")

    def _write(self, data: bytes) -> None:
        try:
            with self._bridge.entered():
                self._channel.write(data)
        except OSError as error:
            raise LostError("the other side reads no more") from error

    def send_end(self) -> None:
        """Say that nothing more will be sent."""
        if not self.is_gone and not self.is_closed:
            with self._bridge.entered():
                self._channel.write_eof()

    async def wait_end(self) -> int | None:
        """Wait until the command has ended; None when a signal has ended it.

        Raises:
            LostError: That will never be known.
        """
        await trio.lowlevel.checkpoint()
        while not (self.has_ended or self.is_gone or self.is_closed):
            await self._news.park()
        if not self.has_ended:
            self._check()
            raise LostError("the machine did not say how the command has ended")
        return self.exit_status

    def _check(self) -> None:
        if self.is_closed:
            raise LostError("the channel was closed here")
        why = self.lost()
        if why is not None:
            raise LostError(why) from self._failure
