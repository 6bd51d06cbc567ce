"""The socket of sd_notify(3): messages as the kernel hands them over, with who sent them."""

import secrets
import socket
import struct
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import trio

from trio_lifecycle.ready._conversation import LONGEST_MESSAGE_BYTES

# struct ucred: pid, uid, gid; unix(7).
_CREDENTIALS: Final = struct.Struct("iII")

# No room for anything else: a descriptor that comes with a message is never opened here. The kernel
# lets go of it when the message is read, which is what the sender of BARRIER=1 waits for.
_CONTROL_BYTES: Final = socket.CMSG_SPACE(_CREDENTIALS.size)

# In a directory; the random digits are twice as many.
_NAME: Final = "notify-"
_RANDOM_BYTES: Final = 8
NAME_BYTES: Final = len(_NAME) + 2 * _RANDOM_BYTES


class Datagram(NamedTuple):
    """A message with its sender.

    Attributes:
        content: Its bytes.
        pid: The process that sent it, as the kernel says; 0 where that can't be seen from here.
        uid: Its user.
        is_cut: True when it was longer than any message may be.
    """

    content: bytes
    pid: int
    uid: int
    is_cut: bool


class NotifySocket:
    """A socket to which a daemon sends messages.

    Args:
        directory: Where it is in the file system; None for the abstract namespace.

    Attributes:
        address: As it stands in NOTIFY_SOCKET.

    Raises:
        OSError: It can't be made.
    """

    def __init__(self, directory: Path | None) -> None:
        name = secrets.token_hex(_RANDOM_BYTES)
        self._path = None if directory is None else directory / f"{_NAME}{name}"
        self.address = f"@trio-lifecycle/{name}" if self._path is None else str(self._path)
        self._socket = socket.socket(
            socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        )
        try:
            # Before anybody can send: else the first messages would come without a sender.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            if self._path is None:
                self._socket.bind("\0" + self.address[1:])
            else:
                self._socket.bind(str(self._path))
                # A daemon may have another user, or take one later. Who may say what is decided by
                # the sender's process, as in the abstract namespace, where there are no modes.
                self._path.chmod(0o666)
        except BaseException:
            self.close()
            raise

    def receive(self) -> Datagram | None:
        """Give the next message that is there; None if there is none, or it is closed."""
        try:
            content, ancillary, flags, _ = self._socket.recvmsg(
                LONGEST_MESSAGE_BYTES, _CONTROL_BYTES
            )
        except OSError:
            return None
        pid, uid = 0, 0
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
                pid, uid, _ = _CREDENTIALS.unpack(data)
        return Datagram(content, pid, uid, bool(flags & socket.MSG_TRUNC))

    async def wait(self) -> None:
        """Wait until there is a message.

        Raises:
            trio.ClosedResourceError: It is closed.
        """
        if self._socket.fileno() < 0:
            raise trio.ClosedResourceError
        await trio.lowlevel.wait_readable(self._socket)

    def close(self) -> None:
        """Hear no more. Again is fine."""
        if self._socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()
            if self._path is not None:
                with suppress(OSError):
                    self._path.unlink()
