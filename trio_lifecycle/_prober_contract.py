"""The contract of a prober: how daemons are asked, from where they run."""

from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from trio_lifecycle._errors import ConfigError
from trio_lifecycle._inbox_contract import Inbox
from trio_lifecycle._process_contract import Process
from trio_lifecycle._questions import Command, Contact, FileMark, Question, Ran
from trio_lifecycle._reports import Answer
from trio_lifecycle._way_back_contract import WayBack


class Prober(ABC):
    """Asks daemons, and who they are, from where they run.

    The caller sets the time limit of each question by cancelling. A prober that can't ask in one of
    these ways says so by a ConfigError.
    """

    @property
    def is_here(self) -> bool:
        """Whether it asks from this machine. True unless said otherwise.

        From where it asks, what listens on loopback here is reached then, and the other way round.
        """
        return True

    async def prepare(self, question: Question) -> None:
        """Load what asking this needs, so that the first question is not late.

        Raises:
            ConfigError: It can't be asked: a file is not what it should be, or a library is
                missing.
        """
        return

    @abstractmethod
    async def ask(self, question: Question) -> Answer:
        """Ask once over HTTP, on a fresh connection: no proxy, no redirect followed.

        Never raises for anything that a server, or the want of one, can do.
        """

    @abstractmethod
    async def connect(self, host: str, port: int) -> Contact:
        """Make a TCP connection, and close it again.

        Never raises for anything that a server, or the want of one, can do.

        Args:
            host: In digits, or a name.
            port: The port.
        """

    async def connect_unix(self, path: str) -> Contact:
        """Make a connection to a UNIX socket, and close it again.

        Never raises for anything that a server, or the want of one, can do.
        """
        raise _incapable(self, "connect to UNIX sockets")

    async def find_binary(self, name: str, search_path: tuple[Path, ...] = ()) -> str:
        """Give the absolute path of a program that ``run`` could run.

        Args:
            name: The program's name or path.
            search_path: Directories to look in first, as the spawner's ``find_binary`` does.
                Defaults to none.

        Raises:
            BinaryNotFoundError: It is not there, or what is there can't be started.
        """
        raise _incapable(self, "run commands")

    async def run(self, command: Command) -> Ran:
        """Run a command to its end, with nothing on its standard input.

        Nothing of it is left: when it ends, and when this is cancelled, whatever it has started is
        killed; and when this program is killed, it ends as a daemon of the same spawner does.

        Raises:
            SpawnError: It can't be run, now or later.
        """
        raise _incapable(self, "run commands")

    async def find_file(self, path: str) -> FileMark | None:
        """Look at a file, links resolved; None when there is none.

        Raises:
            OSError: It can't be looked at.
        """
        raise _incapable(self, "look at files")

    def open_way_back(self, host: str, port: int) -> AbstractAsyncContextManager[WayBack]:
        """Have connections from where the daemon runs come to a server of this program.

        Only asked of a prober that is not here. What it gives is entered by one task and left by
        another, within other cancel scopes: it must hold no nursery and no cancel scope open
        meanwhile. What carries connections runs in tasks of its own (system tasks, say). A
        connection that comes before anybody accepts here waits. Entering raises OSError when there
        is no way now. Leaving ends the way for new connections, lets answers that are under way
        arrive, is bounded, and never raises for anything that the network can do.

        Args:
            host: Where the server listens here: a loopback address, in digits.
            port: Its port.

        Raises:
            ConfigError: This prober never has one.
        """
        raise _incapable(self, "lead calls back to this program")

    async def open_inbox(
        self, directory: Path | None, user: str | int | None, longest_bytes: int
    ) -> Inbox:
        """Make a datagram socket where the daemon runs, and hear what is sent to it.

        Only asked of a prober that is not here. The kernel there says who has sent each message
        (SCM_CREDENTIALS, asked for before anybody can send). When this is cancelled nothing is
        left; what it gives is closed by its ``close``.

        Args:
            directory: Where the socket's file is to be; None for the abstract namespace.
            user: Whom the daemon runs as, by name or id; None is whoever starts it there.
            longest_bytes: How long a message may be; of a longer one only this much is read.

        Raises:
            OSError: It can't be made.
            ConfigError: This prober never has one.
        """
        raise _incapable(self, "hear notifications")

    @abstractmethod
    async def owner_of(self, host: str, port: int) -> Process:
        """Give the process that listens at an address of the machine.

        Its ``pid`` is None where that can't be told.

        Args:
            host: In digits; or the path of a UNIX socket.
            port: The port; 0 for a UNIX socket.
        """

    @abstractmethod
    async def describe_owner(self, host: str, port: int) -> str:
        """Say who listens at an address of the machine: pid and command, if that can be told."""


def _incapable(prober: Prober, what: str) -> ConfigError:
    return ConfigError(
        "ready_mode", f"{type(prober).__name__} can't {what}; use another ready mode"
    )
