"""Starting a process by posix_spawn(3), in a working directory of its own.

``os.posix_spawn`` can set none.

posix_spawn copies no page tables, so its cost does not grow with this program; it reports a failed
exec by its errno, and resets the signal mask and dispositions that a child would otherwise inherit
(a program started by ``nohup`` ignores SIGHUP for ever). ``subprocess`` resets neither, and a
``preexec_fn`` that does is not safe beside threads.
"""

import ctypes
import functools
import os
import signal
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from trio_lifecycle._renumbering import moves

# posix_spawn(3), <spawn.h> of glibc and musl.
_SETSIGDEF: Final = 0x04
_SETSIGMASK: Final = 0x08
_SETSID: Final = 0x80

# glibc 2.34 and later; musl has none.
_CLOSE_FROM: Final = "posix_spawn_file_actions_addclosefrom_np"

# posix_spawnattr_t is 336 bytes in glibc and musl on 64-bit machines, posix_spawn_file_actions_t
# 80, sigset_t 128.
_ROOM_BYTES: Final = 1024


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def spawn(
    program: str,
    argv: Sequence[str],
    env: Mapping[str, str],
    working_dir: str | None,
    streams: tuple[int, int, int],
    descriptors: Mapping[int, int] | None = None,
) -> int:
    """Start a program in a new session and return its pid.

    It gets the three descriptors as its standard streams, those that are asked for (its number ->
    ours) and no other, an empty signal mask, and the default action for every signal.

    Raises:
        OSError: The directory, the program or the system refused, as its errno says; there is no
            process.
    """
    pid = ctypes.c_int()
    variables = [f"{key}={value}" for key, value in env.items()]
    wanted = {**dict(enumerate(streams)), **(descriptors or {})}
    with _file_actions(working_dir, wanted) as actions:
        error = _libc().posix_spawn(
            ctypes.byref(pid),
            os.fsencode(program),
            actions,
            _attributes(),
            _strings(argv),
            _strings(variables),
        )
    _check(error)
    return pid.value


@functools.cache
def _attributes() -> Any:
    """Give the child's attributes: a session of its own, nothing blocked, nothing ignored."""
    libc = _libc()
    attributes, signals = _room(), _room()
    _check(libc.posix_spawnattr_init(attributes))
    flags = ctypes.c_short(_SETSIGDEF | _SETSIGMASK | _SETSID)
    _check(libc.posix_spawnattr_setflags(attributes, flags))
    libc.sigemptyset(signals)
    _check(libc.posix_spawnattr_setsigmask(attributes, signals))
    for signum in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        libc.sigaddset(signals, int(signum))
    _check(libc.posix_spawnattr_setsigdefault(attributes, signals))
    return attributes


@contextmanager
def _file_actions(working_dir: str | None, wanted: Mapping[int, int]) -> Iterator[Any]:
    """Give what the child does with its directory and descriptors before the program begins."""
    libc, actions = _libc(), _room()
    _check(libc.posix_spawn_file_actions_init(actions))
    try:
        if working_dir is not None:
            directory = os.fsencode(working_dir)
            _check(libc.posix_spawn_file_actions_addchdir_np(actions, directory))
        steps, _ = moves(wanted)
        for source, target in steps:
            _check(libc.posix_spawn_file_actions_adddup2(actions, source, target))
        # What was put aside, too.
        _close_the_rest(libc, actions, wanted, (target for _, target in steps))
        yield actions
    finally:
        libc.posix_spawn_file_actions_destroy(actions)


def _room() -> Any:
    return ctypes.create_string_buffer(_ROOM_BYTES)


def _close_the_rest(
    libc: ctypes.CDLL, actions: Any, wanted: Collection[int], made: Iterable[int]
) -> None:
    """Close everything in the child that it is not to have.

    Best without looking: another thread may open something meanwhile, and one by one a descriptor
    above a limit that was lowered later is refused (EBADF).
    """
    close_from = getattr(libc, _CLOSE_FROM, None)
    if close_from is not None:
        end = max(wanted) + 1
        surplus: Iterable[int] = set(range(end)).difference(wanted)
        _check(close_from(actions, end))
    else:
        surplus = {*_open_to_children(), *made}.difference(wanted)
    for fd in surplus:
        _check(libc.posix_spawn_file_actions_addclose(actions, fd))


def _open_to_children() -> list[int]:
    """Give the descriptors above the standard streams that a child would inherit.

    Python itself makes none.
    """
    return [fd for fd in _descriptors() if fd > 2 and _is_inheritable(fd)]


def _descriptors() -> list[int]:
    return [int(name) for name in os.listdir("/dev/fd")]  # noqa: PTH208  # names are wanted, not paths


def _is_inheritable(fd: int) -> bool:
    try:
        return os.get_inheritable(fd)
    except OSError:  # closed meanwhile, or the one that listed the directory
        return False


def _strings(texts: Sequence[str]) -> Any:
    return (ctypes.c_char_p * (len(texts) + 1))(*map(os.fsencode, texts), None)


def _check(error: int) -> None:
    if error:
        raise OSError(error, os.strerror(error))
