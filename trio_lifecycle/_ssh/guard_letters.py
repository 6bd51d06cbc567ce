"""The sockets to which daemons send messages by sd_notify(3), and who has sent each.

A part of the program in ``guard.py``: for Python from 3.7 on, with nothing of the package but other
parts.
"""

from __future__ import annotations

import os
import sys

from trio_lifecycle._ssh.guard_child import encode
from trio_lifecycle.spawner._kernel import read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# What may be asked here.
ORDERS = frozenset({"listen", "taken", "unlisten", "users"})

# How many messages may be under way to an application that has not taken them. More stay in the
# socket, where who sends has to wait.
MOST_UNDER_WAY = 64
# How many are read in one turn of the guard's loop, which has other things to do.
MOST_PER_TURN = 16

# Parents of parents; so many there are only of what wants to keep us busy.
MOST_ANCESTORS = 64

CREDENTIALS_BYTES = 12  # struct ucred of unix(7): pid, uid, gid


class Box:
    """One socket."""

    __slots__ = ("id", "most", "path", "room", "socket")

    def __init__(self, order: dict[str, Any]) -> None:
        # Not ``socket``, whose import takes longer than the start of the guard.
        _socket: Any = __import__("_socket")

        self.id = order["id"]
        self.most = order["most"]
        self.room = MOST_UNDER_WAY
        self.path: bytes | None = None
        self.socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
        self.socket.setblocking(False)
        # Before anybody can send: else the first messages would come without a sender.
        self.socket.setsockopt(_socket.SOL_SOCKET, _socket.SO_PASSCRED, 1)
        address = encode(order["address"])
        try:
            self.bind(address)
        except OSError:
            self.close()
            raise

    def bind(self, address: bytes) -> None:
        """Have it found: at a path, or by a name."""
        if address.startswith(b"@"):
            self.socket.bind(b"\0" + address[1:])
            return
        self.socket.bind(address)
        self.path = address
        # Who may say what is decided by the sender's process, as by a name, where there are no
        # modes.
        os.chmod(address, 0o666)  # noqa: PTH101 - no pathlib here

    def receive(self) -> tuple[bytes, int, int, bool] | None:
        """Give a message, its sender's process and user, and whether it was cut."""
        _socket: Any = __import__("_socket")

        # No room for more: descriptors that come along are closed by the kernel.
        space = _socket.CMSG_SPACE(CREDENTIALS_BYTES)
        try:
            content, ancillary, flags, _ = self.socket.recvmsg(self.most, space)
        except OSError:
            return None
        pid = uid = 0
        for level, kind, data in ancillary:
            if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_CREDENTIALS):
                pid = int.from_bytes(data[:4], sys.byteorder)
                uid = int.from_bytes(data[4:8], sys.byteorder)
        return content, pid, uid, bool(flags & _socket.MSG_TRUNC)

    def close(self) -> None:
        """Close it, and remove its file."""
        self.socket.close()
        if self.path is not None:
            try:
                os.unlink(self.path)  # noqa: PTH108 - no pathlib here
            except OSError:  # somebody else has done it
                pass


class Letters:
    """All sockets, by their descriptors."""

    def __init__(self, say: Callable[..., None]) -> None:
        self.say = say
        self.boxes: dict[int, Box] = {}

    def obey(self, order: dict[str, Any]) -> None:
        """Do one thing."""
        what = order["do"]
        if what == "listen":
            self.listen(order)
        elif what == "users":
            self.say({"answer": order["ask"], "value": users_of(order["pid"])})
        else:
            for box in [box for box in self.boxes.values() if box.id == order["id"]]:
                if what == "taken":
                    box.room += order["count"]
                else:
                    del self.boxes[box.socket.fileno()]
                    box.close()

    def listen(self, order: dict[str, Any]) -> None:
        """Make one, and say whom the daemon is expected to send as; or why there is none."""
        try:
            box = Box(order)
        except OSError as error:
            self.say({"answer": order["ask"], "value": {"errno": error.errno}})
            return
        self.boxes[box.socket.fileno()] = box
        self.say({"answer": order["ask"], "value": {"uids": expected_users(order["user"])}})

    def wanted(self) -> list[int]:
        """List the descriptors of those from which more may be taken."""
        return [fd for fd, box in self.boxes.items() if box.room > 0]

    def take(self, fd: int) -> None:
        """Pass on what has come, with what the sender descended from."""
        box = self.boxes[fd]
        for _ in range(min(box.room, MOST_PER_TURN)):
            received = box.receive()
            if received is None:
                return
            content, pid, uid, is_cut = received
            box.room -= 1
            letter = {"letter": box.id, "pid": pid, "uid": uid, "cut": is_cut}
            self.say(dict(letter, ancestors=ancestors_of(pid), n=len(content)), content)

    def close(self) -> None:
        """Close all."""
        while self.boxes:
            self.boxes.popitem()[1].close()


def ancestors_of(pid: int) -> list[int]:
    """List the parents of a process, nearest first; none when it is gone."""
    found: list[int] = []
    while len(found) < MOST_ANCESTORS:
        line = read(f"/proc/{pid}/stat")
        pid = int(line[line.rindex(b")") + 2 :].split()[1]) if line else 0
        if not pid:
            break
        found.append(pid)
    return found


def users_of(pid: int) -> list[int]:
    """List the users whom a process may act as: real, effective, saved; none if it is gone."""
    for line in read(f"/proc/{pid}/status").split(b"\n"):
        if line.startswith(b"Uid:"):
            return [*map(int, line.split()[1:])]
    return []


def expected_users(user: Any) -> list[int]:
    """List root, who is logged in, and the user who was asked for, if there is one."""
    expected = {0, os.geteuid()}
    if isinstance(user, str):
        import pwd

        try:
            user = pwd.getpwnam(user).pw_uid
        except KeyError:  # the spawn will say so
            pass
    return sorted(expected | ({user} if isinstance(user, int) else set()))
