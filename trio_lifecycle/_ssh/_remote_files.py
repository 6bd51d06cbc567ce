"""Files of another machine: what they are, what is in a log, and what goes with a daemon."""

import re
from typing import Final, NamedTuple

from trio_lifecycle._ssh._line import Line, Looked
from trio_lifecycle._ssh._session import LostError
from trio_lifecycle.abc import FileMark

# dd(1) reads whole blocks; the tool of every machine knows no smaller way to begin in the middle.
_BLOCK_BYTES: Final = 4_096

# As much of a log as is fetched at once, unless another number is given.
_CHUNK_BYTES: Final = 65_536

_NUL: Final = b"\0"
_FRACTION: Final = re.compile(r":[0-9]{2}\.([0-9]{1,9})", re.ASCII)


class Chunk(NamedTuple):
    """A piece of a file.

    Attributes:
        size: How long the whole file was, right before.
        data: What it holds from the offset on.
    """

    size: int
    data: bytes


async def find_file(line: Line, path: str) -> FileMark | None:
    """Look at a file, behind links; None when it is not there.

    Raises:
        OSError: It may not be looked at.
        LostError: It can't be told.
    """
    looked = await line.run("tl_file_mark", path)
    said = _said(looked, path)
    if said is None:
        return None
    device, inode, size, seconds, text = said.decode().rstrip("\0").split(" ", 4)
    fraction = _FRACTION.search(text)
    nanoseconds = int(fraction[1].ljust(9, "0")) if fraction else 0
    return FileMark(int(device), int(inode), int(seconds) * 10**9 + nanoseconds, int(size))


async def read_log(
    line: Line, path: str, offset: int, most_bytes: int = _CHUNK_BYTES
) -> Chunk | None:
    """Read a file from a place on; None when it is not there.

    Args:
        line: The machine.
        path: A regular file.
        offset: Where to begin, in bytes.
        most_bytes: How much to read. Defaults to 64 KiB; with 0 only the size is asked for.

    Raises:
        OSError: It may not be read, or is no regular file.
        LostError: It can't be told.
    """
    first, before = divmod(offset, _BLOCK_BYTES)
    blocks = -(-(before + most_bytes) // _BLOCK_BYTES) if most_bytes else 0
    looked = await line.run(
        *("tl_read_log", path, first, blocks), limit_bytes=(blocks + 1) * _BLOCK_BYTES
    )
    said = _said(looked, path)
    if said is None:
        return None
    size, _, data = said.partition(_NUL)
    return Chunk(int(size), data[before : before + most_bytes])


async def remove_private(line: Line, path: str) -> str | None:
    """Remove a directory with all that is in it, if it is ours alone: no link, mode 0700.

    Returns:
        Why it is still there, as a sentence's end; None when it is gone, also when it was before.

    Raises:
        LostError: It can't be told.
    """
    looked = await line.run("tl_remove_private", path)
    try:
        _said(looked, path)
    except OSError as error:
        return str(error)
    return None


def _said(looked: Looked, path: str) -> bytes | None:
    """Give what was said of a file; None when it is not there."""
    kind, _, said = looked.output.partition(_NUL)
    if kind == b"unknown":
        raise OSError(f"{path}: {said.removesuffix(_NUL).decode(errors='replace')}")
    if kind not in (b"is", b"absent"):
        raise LostError(f"{path} can't be looked at now")
    return said if kind == b"is" else None
