"""Hearing a daemon on, once it is ready."""

import logging
from contextlib import AsyncExitStack
from typing import Final

import trio

from trio_lifecycle.abc import ArmedReady, Process

_log: Final = logging.getLogger("trio_lifecycle")


class Following:
    """One daemon that goes on to be heard, by the mode that said that it was ready.

    Args:
        name: What it is called.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._scope = trio.CancelScope()

    # Ctrl-C may strike in any task that runs Python code; here it would break off the whole owner.
    @trio.lowlevel.enable_ki_protection
    async def run(self, armed: ArmedReady, process: Process, held: AsyncExitStack) -> None:
        """Hear it until its end, then let go of what the mode holds."""
        async with held:
            try:
                with self._scope:
                    await armed.follow(process)
            except Exception:
                # Somebody's plug-in; the daemon itself is well.
                _log.exception("%s is heard no longer: its ready mode failed", self._name)

    def end(self) -> None:
        """Stop: the process has ended, and has said all."""
        self._scope.cancel()
