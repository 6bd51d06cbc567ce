"""Whose a UNIX socket is, and how its path is written."""

import os
from collections.abc import Awaitable, Callable

from trio_lifecycle._errors import ConfigError
from trio_lifecycle._listen_socket import LONGEST_SOCKET_PATH_BYTES
from trio_lifecycle._markers import show
from trio_lifecycle._texts import check_path, with_sample_port
from trio_lifecycle.abc import Prober, Process, Start, Verdict
from trio_lifecycle.ready._filled import file_path
from trio_lifecycle.ready._polled import whose_listener


def check_socket_path(field: str, value: object) -> str:
    """Return the path of a UNIX socket; it may hold FREE_PORT.

    Raises:
        ConfigError: It can be none; names the field.
    """
    path = check_path(field, value)
    _check_length(field, with_sample_port(path), show(path))
    return path


def _check_length(field: str, path: str, shown: str) -> None:
    size = len(os.fsencode(path))
    if size > LONGEST_SOCKET_PATH_BYTES:
        raise ConfigError(
            field,
            f"{shown!r} has {size} bytes, and the path of a UNIX socket "
            f"{LONGEST_SOCKET_PATH_BYTES} at most; choose a shorter directory",
        )


def socket_path(field: str, path: str, start: Start) -> str:
    """Give the path in one spawn: from the daemon's directory on.

    Raises:
        ConfigError: It is too long now.
    """
    found = file_path(path, start)
    _check_length(field, found, found)
    return found


async def whose_socket(
    prober: Prober, process: Process, path: str, is_up: Callable[[], Awaitable[bool]]
) -> Verdict:
    """Say whether who listens at a UNIX socket is of the daemon.

    The kernel names who has called listen(2). That may have been somebody who handed the socket on
    and is no more, so the socket is looked for, too. Of a connection that another machine has made
    for us it names nobody.
    """
    pid = (await prober.connect_unix(path)).pid if prober.is_here else None
    if pid is not None and await process.contains(pid):
        return Verdict.OURS
    if pid is None or process.pid is None:
        return await whose_listener(process, (path, 0), is_up)
    verdict = await process.listener_at(path, 0)
    if process.ended:
        return Verdict.OURS
    return Verdict.FOREIGN if verdict is Verdict.UNKNOWN else verdict
