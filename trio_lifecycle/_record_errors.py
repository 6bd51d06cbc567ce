"""The errors about records of daemons: who may start one, what it is, where that is kept."""

from attrs import define

from trio_lifecycle._errors import LifecycleError


@define(eq=False, slots=False, repr=False)
class DaemonNotRunningError(LifecycleError):
    """The daemon that was asked for is not there, or was stopped before it could be given.

    Attributes:
        daemon: The daemon's name.
        problem: Where it was looked for, or what became of it.
    """

    daemon: str
    problem: str

    def _sentence(self) -> str:
        return f"{self.daemon} is not running: {self.problem}."


@define(eq=False, slots=False, repr=False)
class ConfigChangedError(LifecycleError):
    """The daemon runs, but was started from another configuration; it was left alone.

    Attributes:
        daemon: The daemon's name.
        pid: Its main process.
        fields: The fields that differ.
    """

    daemon: str
    pid: int
    fields: tuple[str, ...]

    def _sentence(self) -> str:
        return (
            f"{self.daemon} runs as process {self.pid}, but was started with other "
            f"{', '.join(self.fields)}. Stop it first, or say on_change='restart' or 'keep'."
        )


@define(eq=False, slots=False, repr=False)
class ClaimTimeoutError(LifecycleError):
    """Somebody else had the right to start the daemon for longer than this caller would wait.

    The right is never taken from its holder while that lives. Nothing was started.

    Attributes:
        daemon: The daemon's name.
        waited_s: Seconds that were waited.
        holder_pid: The process that has the right, or None where that can't be told.
        held_since: Since when, in seconds since the epoch, or None.
    """

    daemon: str
    waited_s: float
    holder_pid: int | None = None
    held_since: float | None = None

    def _sentence(self) -> str:
        from datetime import datetime

        holder = "who is starting it can't be told"
        since = ""
        if self.held_since is not None:
            since = f", since {datetime.fromtimestamp(self.held_since):%Y-%m-%d %H:%M:%S}"
        if self.holder_pid is not None:
            holder = f"process {self.holder_pid} is starting it"
        return (
            f"{self.daemon} could not be looked after for {self.waited_s:.2f} s: "
            f"{holder}{since}. Wait longer with claim_timeout, or find out why that program "
            "does not go on; when it ends, its claim is free."
        )


@define(eq=False, slots=False, repr=False)
class RegistryError(LifecycleError):
    """The registry of daemons can't be used; nothing in it was changed.

    Attributes:
        registry: Where it is, such as the path of its file.
        problem: What is wrong with it, and what would help.
    """

    registry: str
    problem: str

    def _sentence(self) -> str:
        return f"the registry {self.registry} can't be used: {self.problem}."
