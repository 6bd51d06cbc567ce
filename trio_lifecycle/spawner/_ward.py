"""What a reaper has in its care, and what can become of a request to it."""

from typing import Protocol


class ReaperGoneError(Exception):
    """The reaper was lost while it was asked for something."""


class SpawnRefusedError(Exception):
    """The reaper could not spawn: at which stage, and the error number."""

    def __init__(self, stage: str, errno: int) -> None:
        super().__init__(stage, errno)
        self.stage = stage
        self.errno = errno


class Ward(Protocol):
    """A process that a reaper watches."""

    def on_ended(self, status: int | None, gone: bool) -> None:
        """Its main process has ended, and perhaps its whole tree."""

    def on_stray(self, pid: int) -> None:
        """A process has shown up that may be of its tree."""

    def on_lost(self, reason: str) -> None:
        """The reaper is lost."""
