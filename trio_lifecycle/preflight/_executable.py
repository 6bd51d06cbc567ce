"""A check that a program can be started."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from attrs import field, frozen

from trio_lifecycle._binary import find_binary
from trio_lifecycle.abc import Preflight, Prober
from trio_lifecycle.preflight import _values
from trio_lifecycle.preflight._elsewhere import asked_by
from trio_lifecycle.preflight._thread import in_thread

# A disk that sleeps needs some 10 s to spin up.
DEFAULT_CHECK_TIMEOUT_S: Final = 15.0


@frozen(repr=False)
class Executable:
    """A program is there and can be started: one that the daemon calls, say.

    It is looked for as ``find_binary`` does, and the same is said where it is not found. The
    daemon's own program needs no check.

    Attributes:
        name: The program's name or path.
        search_path: Directories to look in first. Defaults to none.
        check_timeout: Seconds that the check may take. Defaults to 15. With less than 10, a disk
            that sleeps is taken for one that is dead.

    Raises:
        ConfigError: A value can't be meant. The message names the field.
    """

    name: str = field(validator=_values.is_name)
    search_path: Sequence[Path] = field(default=(), converter=_values.directories)
    check_timeout: float = field(
        default=DEFAULT_CHECK_TIMEOUT_S, converter=_values.check_timeout, kw_only=True
    )

    def __repr__(self) -> str:
        return _values.brief(self)

    async def __call__(self) -> None:
        """Look for the program.

        Raises:
            BinaryNotFoundError: It is not there, or can't be started.
        """
        await in_thread(find_binary, self.name, self.search_path)

    def at(self, prober: Prober) -> Preflight:
        """Give the check of what the prober's commands can call."""
        return _ExecutableElsewhere(self, prober)


@frozen(repr=False)
class _ExecutableElsewhere:
    check: Executable
    prober: Prober

    def __repr__(self) -> str:
        return repr(self.check)

    async def __call__(self) -> None:
        """Look for the program there.

        Raises:
            BinaryNotFoundError: It is not there, or can't be started.
            CheckFailed: It could not be asked.
        """
        with asked_by(self.prober, f"whether {self.check.name} is there"):
            await self.prober.find_binary(self.check.name, tuple(self.check.search_path))
