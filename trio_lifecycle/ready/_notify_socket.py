"""The socket of sd_notify(3): messages as the kernel hands them over, with who sent them."""

import os
import pwd
import secrets
import socket
import struct
from contextlib import suppress
from pathlib import Path
from typing import Final

import trio

from trio_lifecycle._procfs import uids_of
from trio_lifecycle.abc import Datagram, Inbox
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


class NotifySocket(Inbox):
    """A socket on this machine.

    Args:
        directory: Where it is in the file system; None for the abstract namespace.
        user: Whom the daemon runs as, by name or id; None is this program's user.

    Raises:
        OSError: It can't be made.
    """

    def __init__(self, directory: Path | None, user: str | int | None) -> None:
        name = secrets.token_hex(_RANDOM_BYTES)
        self._uids = _expected_uids(user)
        self._path = None if directory is None else directory / f"{_NAME}{name}"
        self._address = f"@trio-lifecycle/{name}" if self._path is None else str(self._path)
        self._socket = socket.socket(
            socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        )
        try:
            # Before anybody can send: else the first messages would come without a sender.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            if self._path is None:
                self._socket.bind("\0" + self._address[1:])
            else:
                self._socket.bind(str(self._path))
                # A daemon may have another user, or take one later. Who may say what is decided by
                # the sender's process, as in the abstract namespace, where there are no modes.
                self._path.chmod(0o666)
        except BaseException:
            self._close()
            raise

    @property
    def address(self) -> str:
        """A name, or a path."""
        return self._address

    @property
    def uids(self) -> frozenset[int]:
        """Root, this program's user, and the one who was asked for."""
        return self._uids

    def receive(self) -> Datagram | None:
        """Read once."""
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
        """Wait until it can be read."""
        if self._socket.fileno() < 0:
            raise trio.ClosedResourceError
        await trio.lowlevel.wait_readable(self._socket)

    async def uids_of(self, pid: int) -> frozenset[int]:
        """Ask the kernel."""
        return uids_of(pid)

    async def close(self) -> None:
        """Close it, and remove its file."""
        self._close()

    def _close(self) -> None:
        if self._socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()
            if self._path is not None:
                with suppress(OSError):
                    self._path.unlink()


def _expected_uids(user: str | int | None) -> frozenset[int]:
    """Give the users whom a process of the daemon is expected to be of."""
    expected = {0, os.geteuid()}
    if isinstance(user, str):
        # If there is no such user, the spawn will say so.
        with suppress(KeyError):
            user = pwd.getpwnam(user).pw_uid
    return frozenset(expected | ({user} if isinstance(user, int) else set()))
