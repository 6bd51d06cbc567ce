"""The contract of a prober: how daemons are asked, from where they run."""

from abc import ABC, abstractmethod

from trio_lifecycle._errors import ConfigError
from trio_lifecycle._process_contract import Process
from trio_lifecycle._questions import Command, Contact, FileMark, Question, Ran
from trio_lifecycle._reports import Answer


class Prober(ABC):
    """Asks daemons, and who they are, from where they run.

    The caller sets the time limit of each question by cancelling. A prober that can't ask in one of
    these ways says so by a ConfigError.
    """

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

    async def find_binary(self, name: str) -> str:
        """Give the absolute path of a program that ``run`` could run.

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

    @abstractmethod
    async def owner_of(self, host: str, port: int) -> Process:
        """Give the process that listens at an address of the machine.

        Its ``pid`` is None where that can't be told.

        Args:
            host: In digits; or the path of a UNIX socket.
            port: The port; 0 for a UNIX socket.
        """

    @abstractmethod
    def describe_owner(self, host: str, port: int) -> str:
        """Say who listens at an address of the machine: pid and command, if that can be told."""


def _incapable(prober: Prober, what: str) -> ConfigError:
    return ConfigError(
        "ready_mode", f"{type(prober).__name__} can't {what}; use another ready mode"
    )
