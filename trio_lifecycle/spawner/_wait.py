"""Waiting for the end of a process that is not our child."""

import os

import trio

from trio_lifecycle._proc import Stat, open_pidfd


async def wait_for(stat: Stat) -> None:
    """Wait until exactly this process has ended.

    Raises:
        OSError: There is no descriptor left to watch it through.
    """
    pidfd = open_pidfd(stat)
    if pidfd is None:
        await trio.lowlevel.checkpoint()
        return
    try:
        await trio.lowlevel.wait_readable(pidfd)
    finally:
        os.close(pidfd)
