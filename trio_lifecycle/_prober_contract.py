"""The contract of a prober: how daemons are asked, from where they run."""

from abc import ABC, abstractmethod

from trio_lifecycle._process_contract import Process
from trio_lifecycle._reports import Answer


class Prober(ABC):
    """Asks daemons over HTTP, and who they are, from where they run."""

    async def prepare(self) -> None:
        """Load what asking needs, so that the first question is not late."""
        return

    @abstractmethod
    async def get(self, url: str, body_bytes: int = 0) -> Answer:
        """Send one GET on a fresh connection: no proxy, no redirect followed.

        Never raises for anything that a server, or the want of one, can do. The caller sets the
        time limit by cancelling.

        Args:
            url: What to ask.
            body_bytes: How much of the body to read. Defaults to 0: the answer has none, nor
                headers.
        """

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
