"""What a file of this machine holds, in short: its SHA-256."""

import hashlib
from pathlib import Path
from typing import BinaryIO, Final

import trio

# A disk gives this in some 10 ms, and so long a cancellation waits.
_PIECE_BYTES: Final = 8_388_608


async def digest_of(path: Path) -> str:
    """Give the digest of a file, in hexadecimal; read in a thread, piece by piece.

    Raises:
        OSError: It can't be read.
    """
    digest = hashlib.sha256()

    def take(file: BinaryIO) -> bool:
        piece = file.read(_PIECE_BYTES)
        digest.update(piece)
        return bool(piece)

    file = await trio.to_thread.run_sync(_open, path)
    with file:
        while await trio.to_thread.run_sync(take, file):
            pass
    return digest.hexdigest()


def _open(path: Path) -> BinaryIO:
    return path.open("rb", buffering=0)
