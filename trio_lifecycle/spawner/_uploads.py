"""Files of this machine that a daemon needs on another."""

from collections.abc import Mapping
from os import PathLike

import trio

from trio_lifecycle._ssh._machine import Machine

File = str | PathLike[str]


class Uploads:
    def __init__(self, files: Mapping[File, File]) -> None:
        self._files = files

    async def bring(self, machine: Machine) -> None:
        await trio.lowlevel.checkpoint()
