"""The contract of an inbox: a datagram socket to which a daemon sends, where the daemon runs."""

from abc import ABC, abstractmethod
from typing import NamedTuple


class Datagram(NamedTuple):
    """A message with its sender.

    Attributes:
        content: Its bytes.
        pid: The process that sent it, as the kernel says where it was sent; 0 where that can't be
            seen from there.
        uid: Its user.
        is_cut: True when it was longer than a message may be.
        ancestors: The processes that the sender descended from when the message came, nearest
            first; empty where nobody has looked. Who looks at once knows them also of a sender that
            is gone by the time that its message is judged.
    """

    content: bytes
    pid: int
    uid: int
    is_cut: bool = False
    ancestors: tuple[int, ...] = ()


class Inbox(ABC):
    """A socket to which a daemon sends messages, where the daemon runs."""

    @property
    @abstractmethod
    def address(self) -> str:
        """What stands in NOTIFY_SOCKET. That is a path, or @ and a name."""

    @property
    @abstractmethod
    def uids(self) -> frozenset[int]:
        """The users whom a process of the daemon is expected to send as.

        That is root, the user whom daemons run as there, and the one who was asked for.
        """

    @abstractmethod
    def receive(self) -> Datagram | None:
        """Give the next message that has come; None if there is none, or the inbox is closed.

        Messages come in the order in which they were sent. Where they come from another machine,
        those that have not arrived are not waited for.
        """

    @abstractmethod
    async def wait(self) -> None:
        """Wait until there is a message. One task waits at a time.

        Where none can come any more, because the connection to another machine is lost, it waits
        until it is cancelled: that the daemon can't be seen any more is said by its process. When
        the inbox is closed, or is closed meanwhile, it raises Trio's ClosedResourceError.
        """

    @abstractmethod
    async def uids_of(self, pid: int) -> frozenset[int]:
        """Give the users whom a process may act as now: real, effective, saved; none if it is gone.

        Never raises for anything that the network can do; who can't tell gives none.
        """

    @abstractmethod
    async def close(self) -> None:
        """Hear no more, and remove the socket. Again is fine. Bounded, and never raises."""
