"""The last bytes of a stream."""


class Tail:
    """The last bytes of a stream."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept = bytearray()

    def feed(self, chunk: bytes) -> None:
        """Take a chunk; what is too old goes."""
        self._kept += chunk
        # Cut only when twice the size is reached: moving bytes at each chunk would cost more than
        # reading them.
        if len(self._kept) > 2 * self._size:
            del self._kept[: len(self._kept) - self._size]

    def __bytes__(self) -> bytes:
        return bytes(self._kept[max(0, len(self._kept) - self._size) :])
