"""Daemons that are out of sight: how they are looked at again, and what is said of them."""

from contextlib import suppress
from typing import Final

import trio

from trio_lifecycle._errors import DaemonStateUnknownError
from trio_lifecycle.abc import Process

# Between two looks at one that can't be seen: a connection that is refused at once is asked for
# twice a second.
_LOOK_AGAIN_AFTER_S: Final = 0.5


async def look_once(process: Process, seconds: float) -> None:
    """Bring what is known of a process up to date, if that can be done in so many seconds."""
    with trio.move_on_after(seconds), suppress(OSError, DaemonStateUnknownError):
        await process.look()


async def see_again(process: Process) -> None:
    """Look at a process until it can be seen, or is gone; the caller bounds that."""
    while is_out_of_sight(process):
        with suppress(OSError, DaemonStateUnknownError):
            await process.look()
        if is_out_of_sight(process):
            await trio.sleep(_LOOK_AGAIN_AFTER_S)


def is_out_of_sight(process: Process) -> bool:
    """Say whether a process can't be seen, and was not seen to be gone."""
    return process.unseen is not None and not process.gone


def lost_from_sight(
    name: str, process: Process, when: str, reason: str | None
) -> DaemonStateUnknownError:
    """Say that a daemon can't be seen any more.

    Args:
        name: The daemon's name.
        process: Its process.
        when: What went on, as part of a sentence.
        reason: Why it can't be seen.
    """
    return DaemonStateUnknownError(
        name,
        f"process {process.pid} was lost from sight {when}: {_part(reason)}; "
        "start it again when it can be seen",
    )


def out_of_sight(name: str, process: Process, *, recorded: bool) -> DaemonStateUnknownError:
    """Say that a daemon was to go, and that nobody can see whether it has gone."""
    kept = "; its record was kept" if recorded else ""
    return DaemonStateUnknownError(
        name,
        f"process {process.pid} was to be stopped, and can't be seen to be gone: "
        f"{_part(process.unseen)}{kept}; stop it again when it can be seen",
    )


def _part(sentence: str | None) -> str:
    """Make a sentence a part of another one."""
    return str(sentence).removesuffix(".")
