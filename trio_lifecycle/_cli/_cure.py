"""What helps where nobody can judge a record any more, and its name is blocked."""

from trio_lifecycle._cli._machine_options import MachineOptions
from trio_lifecycle._cli._sentences import printable
from trio_lifecycle._cli._status import look_at
from trio_lifecycle._cli._which import how_to_stop, is_elsewhere
from trio_lifecycle._errors import DaemonStateUnknownError, LifecycleError
from trio_lifecycle._ssh_errors import SSHConnectError
from trio_lifecycle.abc import Registry


async def cure_of(
    error: LifecycleError, registry: Registry, path: str | None, machine: MachineOptions
) -> str | None:
    """Say how its name is made free again; None where that would cure nothing.

    Args:
        error: What happened.
        registry: Where the daemon is recorded.
        path: How that was written, if it is another registry than this user's.
        machine: Where it was looked for.
    """
    if not isinstance(error, DaemonStateUnknownError):
        return None
    if isinstance(error.__cause__, SSHConnectError):
        # It says itself what to do about the machine, and is not to be waited for once more.
        return None
    try:
        record = await registry.get(error.daemon)
    except LifecycleError:
        return None
    # One that is seen to live may be unknown to be up; to forget it would start a second one.
    if record is None or (await look_at(record, machine)).state != "unknown":
        return None
    how = how_to_stop(error.daemon, path, "--forget")
    cure = f"if you know that {error.daemon} is gone, free its name with: {how}"
    if machine.is_here and is_elsewhere(record):
        return f"{cure}\nIf {printable(record.host)} can be reached over SSH, name it by --host."
    return cure
