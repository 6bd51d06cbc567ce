"""A file that is copied to another machine, by SFTP."""

import os
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import trio

from trio_lifecycle._errors import LifecycleError
from trio_lifecycle._ssh._bridge import Bridge
from trio_lifecycle._ssh._failures import Progress
from trio_lifecycle._ssh._login import require_asyncssh
from trio_lifecycle._ssh._session import LostError
from trio_lifecycle._ssh_errors import SSHConnectError

# What is left of a copy is removed in this time, or stays.
_REMOVAL_S: Final = 5.0

# Those that lead through the directory's owner are the machine's own business.
_PERMISSIONS: Final = 0o777
_PRIVATE: Final = 0o600


class Upload:
    """One copy: written to a file beside the right one, and then renamed."""

    def __init__(
        self,
        bridge: Bridge,
        progress: Progress,
        local: Path,
        remote: str,
        beside: str,
        check: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        self._bridge = bridge
        self._progress = progress
        self._local = local
        self._remote = remote
        self._check = check
        self._beside = beside

    async def run(
        self,
        start: Callable[..., Awaitable[Any]],
        hear: Callable[[int, int], None] | None,
    ) -> None:
        """Copy it over a channel of its own.

        Raises:
            OSError: The file here can't be read.
            SSHConnectError: The machine would not take it.
        """
        about = await trio.to_thread.run_sync(os.stat, self._local)
        if not stat.S_ISREG(about.st_mode):
            raise OSError(f"{self._local} is no file")
        try:
            sftp = await self._bridge.see_through(start, late=self._exit)
        except LostError:
            raise
        except Exception as error:
            raise self._no_sftp(error) from error
        try:
            await self._copy(sftp, about, hear)
        finally:
            self._exit(sftp)

    async def _copy(
        self, sftp: Any, about: os.stat_result, hear: Callable[[int, int], None] | None
    ) -> None:
        is_done = False
        try:
            await self._write(sftp, about, hear)
            if self._check is not None:
                await self._check(self._beside)
            await self._bridge.call(sftp.posix_rename, _bytes(self._beside), _bytes(self._remote))
            is_done = True
        except (OSError, LostError, LifecycleError):
            raise
        except Exception as error:
            raise self._refused(error) from error
        finally:
            if not is_done:
                await self._remove(sftp)  # noqa: ASYNC102 - shielded and bounded by itself

    async def _write(
        self, sftp: Any, about: os.stat_result, hear: Callable[[int, int], None] | None
    ) -> None:
        def heard(_from: object, _to: object, copied: int, total: int) -> None:
            if hear is not None:
                hear(copied, total)

        await self._make_private(sftp)
        # Without sparse=False, a hole at the end of the file would not arrive.
        await self._bridge.call(
            sftp.put,
            os.fsencode(self._local),
            _bytes(self._beside),
            progress_handler=heard,
            sparse=False,
        )
        there = await self._bridge.call(sftp.stat, _bytes(self._beside))
        if there.size != about.st_size:
            raise self._refused(
                OSError(f"{there.size} of {about.st_size} bytes have arrived; did it change?")
            )
        mode = about.st_mode & _PERMISSIONS
        await self._bridge.call(sftp.chmod, _bytes(self._beside), mode)

    async def _make_private(self, sftp: Any) -> None:
        # Until it is complete it has no mode that its owner has chosen, and what is in it may be
        # for him alone. Exclusively: what stands there already is somebody else's.
        private = require_asyncssh().SFTPAttrs(permissions=_PRIVATE)
        made = await self._bridge.call(sftp.open, _bytes(self._beside), "xb", private)
        await self._bridge.call(made.close)

    async def _remove(self, sftp: Any) -> None:
        # Bounded, for the machine may be out of reach. It looks after what is left then.
        with trio.move_on_after(_REMOVAL_S, shield=True):
            try:
                await self._bridge.call(sftp.remove, _bytes(self._beside))
            except Exception:  # it never was there, or can't be had any more
                return

    def _exit(self, sftp: Any) -> None:
        if sftp is not None:
            with self._bridge.entered():
                sftp.exit()

    def _refused(self, error: Exception) -> SSHConnectError:
        reason = getattr(error, "reason", str(error))
        return self._progress.fail(
            SSHConnectError,
            f"the machine would not take it ({reason})",
            "See whether its directory is there and may be written to, and its disk has room.",
            f"uploading {self._local} to {self._remote}",
        )

    def _no_sftp(self, error: Exception) -> SSHConnectError:
        return self._progress.fail(
            SSHConnectError,
            f"the server has no SFTP for it ({getattr(error, 'reason', str(error))})",
            "Its sshd_config needs the line 'Subsystem sftp internal-sftp', and it may allow too "
            "few sessions at once (MaxSessions).",
            f"uploading {self._local} to {self._remote}",
        )


def _bytes(path: str) -> bytes:
    # A name there may be in no encoding.
    return path.encode(errors="surrogateescape")
