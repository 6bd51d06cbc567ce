"""The errors about other machines: who could not be reached, and why."""

from attrs import define

from trio_lifecycle._errors import BinaryNotFoundError, LifecycleError


@define(eq=False, slots=False, repr=False)
class SSHConnectError(LifecycleError):
    """Another machine could not be reached over SSH, or could not do what was asked.

    Attributes:
        host: The machine, as it was named by the caller.
        user: Who was to log in there; None where that was not known yet.
        port: The port that was tried; None where that was not known yet.
        phase: What was being done, such as "connecting" or "opening a session".
        problem: What went wrong.
        cure: What to do next, as a sentence; empty where nothing is known.
    """

    host: str
    user: str | None
    port: int | None
    phase: str
    problem: str
    cure: str = ""

    def _sentence(self) -> str:
        who = "" if self.user is None else f"{self.user}@"
        where = "" if self.port in (None, 22) else f":{self.port}"
        cure = f" {self.cure}" if self.cure else ""
        return f"{who}{self.host}{where}: {self.phase} failed: {self.problem}.{cure}"


@define(eq=False, slots=False, repr=False)
class SSHAuthError(SSHConnectError):
    """The other machine did not let the user in."""


@define(eq=False, slots=False, repr=False)
class SSHHostKeyError(SSHConnectError):
    """Whether it is the right machine could not be proved; nothing was sent to it.

    Its key is not known, has changed, or was revoked. It is not tried again, and never accepted by
    itself.
    """


@define(eq=False, slots=False, repr=False)
class RemoteBinaryNotFoundError(BinaryNotFoundError):
    """The program to start is not there on the other machine, or can't be started there.

    Attributes:
        name: What was looked for.
        searched: Every path that was looked at, in order.
        near_misses: What was there but could not serve, each with its reason.
        host: The machine.
    """

    host: str = ""

    def _sentence(self) -> str:
        return f"On {self.host}: {super()._sentence()}"
