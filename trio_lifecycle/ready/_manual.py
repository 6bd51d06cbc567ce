"""Ready as soon as the program runs: its user looks for himself."""

from attrs import frozen

from trio_lifecycle.abc import ArmedReady, Process, ReadyMode, Report, Start


@frozen
class Manual(ReadyMode):
    """Ready as soon as the program was started; whether it serves yet is left to the caller.

    For programs that say nothing of themselves and are not asked, such as a batch job, or a server
    whose client tries again by itself.
    """

    async def arm(self, start: Start) -> "ArmedManual":
        """Nothing is needed."""
        return ArmedManual(start.port)


class ArmedManual(ArmedReady):
    """Ready at once."""

    def __init__(self, port: int | None) -> None:
        self._port = port

    @property
    def last_seen(self) -> str:
        """Never shown: there is no wait."""
        return "nothing was asked"

    async def wait(self, process: Process) -> Report:
        """Give what is known: the port that was chosen."""
        return Report(None, self._port)

    async def ask(self, process: Process) -> Report:
        """Being alive is enough."""
        return Report(None, self._port)
