"""A check that a disk has room."""

import os
import re
from pathlib import Path
from typing import Final

from attrs import field, frozen

from trio_lifecycle.abc import Preflight, Prober
from trio_lifecycle.preflight import _values
from trio_lifecycle.preflight._elsewhere import Elsewhere, Told
from trio_lifecycle.preflight._failure import CheckFailed
from trio_lifecycle.preflight._file_exists import nearest
from trio_lifecycle.preflight._thread import in_thread

# A disk that sleeps needs some 10 s to spin up.
DEFAULT_CHECK_TIMEOUT_S: Final = 15.0

# The columns of df -P are total, used, available, used in percent; blanks may stand in the names
# before and after them. A system may give neither total nor percent.
_DF_ROW: Final = re.compile(r" [-\d]+ +[-\d]+ +(\d+) +(?:\d+%|-) +/")


@frozen(repr=False)
class DiskSpace:
    """The file system of a path has so much room for an ordinary user: what ``df`` calls available.

    Quotas are not looked at.

    Attributes:
        path: A file or directory on it. It need not be there yet: then the nearest directory above
            it counts. A relative path counts from the current directory of this program.
        gib: How much must be free, in GiB (1,073,741,824 bytes).
        check_timeout: Seconds that the check may take. Defaults to 15. With less than 10, a disk
            that sleeps is taken for one that is dead.

    Raises:
        ConfigError: A value can't be meant. The message names the field.
    """

    path: Path = field(converter=_values.path)
    gib: float = field(converter=_values.gib)
    check_timeout: float = field(
        default=DEFAULT_CHECK_TIMEOUT_S, converter=_values.check_timeout, kw_only=True
    )

    def __repr__(self) -> str:
        return _values.brief(self)

    async def __call__(self) -> None:
        """Look at the file system.

        Raises:
            CheckFailed: It has less, or can't be looked at.
        """
        try:
            place, free = await in_thread(free_bytes, self.path)
        except OSError as error:
            raise CheckFailed(f"{self._about} can't be told: {error.strerror}") from None
        self._judge(str(place), free)

    def at(self, prober: Prober) -> Preflight:
        """Give the check of a disk of the prober's machine, by ``df``."""
        return Elsewhere(self, prober, ("disk_of", str(self.path)), self._about, self._judge_told)

    @property
    def _about(self) -> str:
        return f"how much is free at {self.path}"

    def _judge_told(self, told: Told) -> None:
        row = _DF_ROW.search(told.get("df") or "")
        if row is None:
            problem = told.get("problem") or "df does not say"
            raise CheckFailed(f"{self._about} can't be told: {problem}")
        self._judge(told.get("place") or str(self.path), int(row[1]) * 1024)

    def _judge(self, place: str, free: int) -> None:
        wanted = self.gib * _values.BYTES_PER_GIB
        if free < wanted:
            raise CheckFailed(
                f"the file system of {place} has {_values.in_gib(free)} free, and "
                f"{_values.in_gib(wanted)} are needed: make room, or use another disk"
            )


def free_bytes(path: Path) -> tuple[Path, int]:
    """Give the directory that was looked at, and what is free there to an ordinary user.

    Raises:
        OSError: It can't be looked at.
    """
    place = nearest(path.absolute())
    facts = os.statvfs(place)
    return place, facts.f_bavail * facts.f_frsize
