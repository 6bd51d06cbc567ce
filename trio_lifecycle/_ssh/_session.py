"""The contract of a session: one command on another machine, with its streams."""

from abc import ABC, abstractmethod


class LostError(Exception):
    """The connection to the machine is gone, and with it the session; says why, as a sentence.

    What the command does now is not known.
    """


class Session(ABC):
    """One command that runs on another machine: what is sent it reads, what it writes is received.

    One task sends, and one receives, at a time. What it writes to its standard error is kept, the
    end of it, and shown by ``complaints``.
    """

    @abstractmethod
    async def send(self, data: bytes) -> None:
        """Send to its standard input; returns when there is room for more.

        Raises:
            LostError: The connection is gone, or the command reads no more.
        """

    @abstractmethod
    async def receive(self) -> bytes:
        """Give what it has written since, at least one byte; nothing when it has closed its output.

        A cancellation loses nothing.

        Raises:
            LostError: The connection is gone.
        """

    @abstractmethod
    async def wait_end(self) -> int | None:
        """Wait until the command has ended, and give its exit status.

        None when a signal has ended it.

        Raises:
            LostError: The connection is gone; how it ended, or whether, is not known.
        """

    @abstractmethod
    def complaints(self) -> str:
        """Give the end of what it wrote to its standard error, at most 4 KiB."""

    @abstractmethod
    def close(self) -> None:
        """Close the channel: the command reads the end of its input. Again is fine.

        It does not wait; the command may go on.
        """
