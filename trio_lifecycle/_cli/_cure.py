"""What helps where nobody can judge a record any more, and its name is blocked."""

from trio_lifecycle._cli._status import look_at
from trio_lifecycle._cli._which import how_to_stop
from trio_lifecycle._errors import DaemonStateUnknownError, LifecycleError
from trio_lifecycle.abc import Registry


async def cure_of(error: LifecycleError, registry: Registry, path: str | None) -> str | None:
    """Say how its name is made free again; None where that would cure nothing.

    Args:
        error: What happened.
        registry: Where the daemon is recorded.
        path: How that was written, if it is another registry than this user's.
    """
    if not isinstance(error, DaemonStateUnknownError):
        return None
    try:
        record = await registry.get(error.daemon)
    except LifecycleError:
        return None
    # One that is seen to live may be unknown to be up; to forget it would start a second one.
    if record is None or (await look_at(record)).state != "unknown":
        return None
    how = how_to_stop(error.daemon, path, "--forget")
    return f"if you know that {error.daemon} is gone, free its name with: {how}"
