"""The contract of a way back: how a daemon that runs elsewhere calls a server of this program."""

from abc import ABC, abstractmethod
from typing import NamedTuple

from attrs import frozen


class Peer(NamedTuple):
    """The connection that a callback came over, as the server that took it sees it.

    Attributes:
        client: The address and port of who called.
        server: The address and port that was called.
    """

    client: tuple[str, int]
    server: tuple[str, int]


@frozen
class Caller:
    """Who has made a connection, on the machine where it was made.

    Attributes:
        uid: The number of the user whose socket it is.
        pid: A process that holds the socket. None where that can't be told, and where it was not
            looked for, because the user is the same.
        is_same_user: Whether that is the user whom daemons run as there, if nothing else was asked
            for: this program's own on this machine, the one who is logged in on another.
    """

    uid: int
    pid: int | None
    is_same_user: bool


class WayBack(ABC):
    """A way on which connections from where the daemon runs come to a server of this program.

    Attributes:
        host: The address to call there, in digits: most often a loopback address.
        port: The port to call there.
    """

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port

    @abstractmethod
    async def caller(self, peer: Peer) -> Caller | None:
        """Say who has made a connection, while it is open.

        Never raises for anything that the network can do.

        Args:
            peer: As the server sees it. Its client may be this program itself, which has carried
                the connection here; asked for is who made it at the other end.

        Returns:
            None where that can't be told, since the connection did not come on this way, was
            closed, or came from yet another machine.
        """
