"""The errors: each carries the facts of what happened and says what to do next."""

from attrs import define

from trio_lifecycle._status import describe_status, quote_output


@define(eq=False, slots=False, repr=False)
class LifecycleError(Exception):
    """Anything that this package reports; every other error of it is one of these.

    It is no ``TimeoutError`` and no ``OSError``, so that ``except OSError`` around a network call
    never hides it.
    """

    def __str__(self) -> str:
        return self._sentence()

    def _sentence(self) -> str:
        return ", ".join(str(fact) for fact in self.args)


@define(eq=False, slots=False, repr=False)
class ConfigError(LifecycleError, ValueError):
    """A value in a configuration can't be meant; nothing was started.

    Attributes:
        field: The name of the field.
        problem: What is wrong with it and what would be right.
    """

    field: str
    problem: str

    def _sentence(self) -> str:
        return f"{self.field}: {self.problem}"


@define(eq=False, slots=False, repr=False)
class BinaryNotFoundError(LifecycleError):
    """The program to start is not there, or what is there can't be started.

    Attributes:
        name: What was looked for.
        searched: Every path that was looked at, in order.
        near_misses: What was there but could not serve, each with its reason.
    """

    name: str
    searched: tuple[str, ...]
    near_misses: tuple[str, ...] = ()

    def _sentence(self) -> str:
        if self.near_misses:
            found = "".join(f"\n  {miss}" for miss in self.near_misses)
            return f"{self.name} can't be started. What was found:{found}"
        places = "".join(f"\n  {path}" for path in self.searched) or "\n  nowhere: there is no PATH"
        return (
            f"{self.name} was not found. Looked at:{places}\n"
            f"Install it,{'' if '/' in self.name else ' give its directory in search_path,'} "
            "or give its full path as binary_name."
        )


@define(eq=False, slots=False, repr=False)
class PreflightError(LifecycleError):
    """A check before the start failed; nothing was started.

    Attributes:
        daemon: The daemon's name.
        failures: One sentence for each check that failed.
    """

    daemon: str
    failures: tuple[str, ...]

    def _sentence(self) -> str:
        failures = "".join(f"\n  {failure}" for failure in self.failures)
        return f"{self.daemon} was not started, its preflight failed:{failures}"


@define(eq=False, slots=False, repr=False)
class SpawnError(LifecycleError):
    """The operating system would not start the program; no process is left.

    Attributes:
        daemon: The daemon's name.
        problem: What was refused, naming the program or the directory that it is about.
        errno: The system's error number, or None.
        retryable: True when the machine was short of something (descriptors, memory, processes), so
            that the same start may succeed later.
    """

    daemon: str
    problem: str
    errno: int | None = None
    retryable: bool = False

    def _sentence(self) -> str:
        later = " The same start may succeed later." if self.retryable else ""
        return f"{self.daemon} could not be spawned: {self.problem}.{later}"


@define(eq=False, slots=False, repr=False)
class ReadyTimeoutError(LifecycleError):
    """The daemon runs but was not ready in time; it was stopped.

    Attributes:
        daemon: The daemon's name.
        waited_s: Seconds from the spawn until the wait ended.
        last_seen: What the ready mode saw last.
        output_tail: The end of the daemon's output.
        extended: True when it had asked for more time, and got all that it may get.
    """

    daemon: str
    waited_s: float
    last_seen: str
    output_tail: str = ""
    extended: bool = False

    def _sentence(self) -> str:
        limit = "max_ready_timeout" if self.extended else "ready_timeout"
        return (
            f"{self.daemon} was not ready after {self.waited_s:.2f} s and was stopped; "
            f"{self.last_seen}. If it only needs longer, raise {limit}."
            f"{quote_output(self.output_tail)}"
        )


@define(eq=False, slots=False, repr=False)
class StallTimeoutError(LifecycleError):
    """The daemon runs, but was silent for too long before it was ready; it was stopped.

    Attributes:
        daemon: The daemon's name.
        waited_s: Seconds from the spawn until the wait ended.
        silent_s: Seconds since its last sign of life: output, or what it said of its progress.
        last_seen: What the ready mode saw last.
        output_tail: The end of the daemon's output.
    """

    daemon: str
    waited_s: float
    silent_s: float
    last_seen: str
    output_tail: str = ""

    def _sentence(self) -> str:
        return (
            f"{self.daemon} was not ready after {self.waited_s:.2f} s and was stopped, for it had "
            f"shown no sign of life for {self.silent_s:.2f} s; {self.last_seen}. If it works in "
            f"silence, raise stall_timeout.{quote_output(self.output_tail)}"
        )


@define(eq=False, slots=False, repr=False)
class ReadyError(LifecycleError):
    """The ready mode failed for good: waiting longer could not have helped. The daemon was stopped.

    Attributes:
        daemon: The daemon's name.
        problem: What the mode met.
        output_tail: The end of the daemon's output.
    """

    daemon: str
    problem: str
    output_tail: str = ""

    def _sentence(self) -> str:
        return f"{self.daemon} can't become ready: {self.problem}.{quote_output(self.output_tail)}"


@define(eq=False, slots=False, repr=False)
class DiedBeforeReadyError(LifecycleError):
    """The daemon ended while its readiness was awaited.

    Attributes:
        daemon: The daemon's name.
        exit_status: As ``subprocess`` counts: -9 is SIGKILL. None where only the process's parent
            could know.
        waited_s: Seconds from the spawn until its end was seen.
        output_tail: The end of the daemon's output.
    """

    daemon: str
    exit_status: int | None
    waited_s: float
    output_tail: str = ""

    def _sentence(self) -> str:
        hint = ""
        if self.exit_status == 0:
            hint = " If it has put itself into the background, have it stay in the foreground."
        return (
            f"{self.daemon} {describe_status(self.exit_status)} after {self.waited_s:.2f} s, "
            f"before it was ready.{hint}{quote_output(self.output_tail)}"
        )


@define(eq=False, slots=False, repr=False)
class DaemonDiedError(LifecycleError):
    """The daemon ended while its owner still needed it; the owner's block was cancelled.

    Attributes:
        daemon: The daemon's name.
        exit_status: As ``subprocess`` counts: -9 is SIGKILL. None where only the process's parent
            could know.
        lived_s: Seconds from readiness until its end was seen.
        output_tail: The end of the daemon's output.
    """

    daemon: str
    exit_status: int | None
    lived_s: float
    output_tail: str = ""

    def _sentence(self) -> str:
        return (
            f"{self.daemon} {describe_status(self.exit_status)} {self.lived_s:.2f} s "
            f"after it was ready, while it was still needed.{quote_output(self.output_tail)}"
        )


@define(eq=False, slots=False, repr=False)
class ReaperLostError(DaemonDiedError):
    """The helper that guards the daemon was killed, and what was left of it has ended the daemon.

    Nothing is wrong with the daemon, nor with its owner. The next start gets a new helper.
    ``lived_s`` is 0 when the daemon was not ready yet.

    Attributes:
        reason: How it was lost.
    """

    reason: str = ""

    def _sentence(self) -> str:
        when = f"{self.lived_s:.2f} s after" if self.lived_s else "before"
        return (
            f"{self.daemon} was ended {when} it was ready, because its reaper "
            f"was lost: {self.reason}. Without one nobody would end it if this program were killed."
            f"{quote_output(self.output_tail)}"
        )


@define(eq=False, slots=False, repr=False)
class GuaranteeError(LifecycleError):
    """What was asked for the daemon's end can't be promised here; nothing was started.

    Attributes:
        daemon: The daemon's name.
        guarantee: What was asked for, such as ``"contained"``.
        problem: What is missing.
    """

    daemon: str
    guarantee: str
    problem: str

    def _sentence(self) -> str:
        return (
            f"{self.daemon} can't be {self.guarantee} here: {self.problem}. "
            f"With less, guarantee={_LESS.get(self.guarantee, 'scoped')!r} for its spawner, "
            "it could be started."
        )


_LESS = {"contained": "guarded"}


@define(eq=False, slots=False, repr=False)
class ForeignDaemonError(LifecycleError):
    """Another program answers where this daemon should; it was left alone, and ours does not run.

    Attributes:
        daemon: The daemon's name.
        address: Where it answers.
        owner: Who listens there: pid and command, or what could be found out.
    """

    daemon: str
    address: str
    owner: str

    def _sentence(self) -> str:
        return (
            f"{self.address} is answered by {self.owner}, not by {self.daemon}. "
            "Stop that program or give the daemon another port (FREE_PORT finds a free one)."
        )


@define(eq=False, slots=False, repr=False)
class DaemonStateUnknownError(LifecycleError):
    """Whether the daemon runs can't be told, so nothing was done.

    Attributes:
        daemon: The daemon's name.
        problem: What was asked and what came back.
    """

    daemon: str
    problem: str

    def _sentence(self) -> str:
        return f"the state of {self.daemon} is unknown: {self.problem}."


@define(eq=False, slots=False, repr=False)
class StopError(LifecycleError):
    """SIGKILL was sent and a process of the daemon is still there.

    Attributes:
        daemon: The daemon's name.
        pid: The process that stays.
        waiting_in: Where in the kernel it waits, or an empty string.
        seconds: How long the stop took so far.
    """

    daemon: str
    pid: int
    waiting_in: str
    seconds: float

    def _sentence(self) -> str:
        where = f" (it waits in the kernel: {self.waiting_in})" if self.waiting_in else ""
        return (
            f"process {self.pid} of {self.daemon} outlived SIGKILL{where}; "
            f"gave up after {self.seconds:.1f} s. A process in uninterruptible sleep ends when its "
            "disk or network answers."
        )
