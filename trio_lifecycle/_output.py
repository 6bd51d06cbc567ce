"""What a daemon writes: kept, cut into lines, passed on, and never in its way."""

import codecs
import errno
import logging
import os
import stat
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Final

import trio

from trio_lifecycle._destination import Output, Sink
from trio_lifecycle._framing import LineFramer
from trio_lifecycle.abc import Process

_log: Final = logging.getLogger("trio_lifecycle")

# As much as a pipe holds by default (pipe(7)), so that one read empties it.
READ_BYTES: Final = 65_536

# Lines that a reader of `lines()` may be behind before it loses the oldest.
LINES_KEPT_FOR_A_READER: Final = 10_000


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


class Lines:
    """Gives lines to any number of readers, each at its own pace."""

    def __init__(self) -> None:
        # A reader that is dropped in the middle of a loop needs no closing: it is forgotten with
        # its last reference.
        self._readers: weakref.WeakSet[LineReader] = weakref.WeakSet()
        self._closed = False

    @property
    def wanted(self) -> bool:
        """True while somebody reads."""
        return len(self._readers) > 0

    def feed(self, lines: list[str]) -> None:
        """Give lines to whoever reads now."""
        for reader in self._readers:
            reader.feed(lines)

    def close(self) -> None:
        """Say that there will be no more."""
        self._closed = True
        for reader in self._readers:
            reader.close()

    def read(self) -> "LineReader":
        """Give the lines that come from now on."""
        reader = LineReader()
        if self._closed:
            reader.close()
        self._readers.add(reader)
        return reader


class LineReader(AsyncIterator[str]):
    """Lines on their way to one reader; the oldest go when it is too slow."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=LINES_KEPT_FOR_A_READER)
        self._news = trio.Event()
        self._closed = False

    def feed(self, lines: list[str]) -> None:
        """Take lines."""
        if lines:
            self._lines.extend(lines)
            self._news.set()

    def close(self) -> None:
        """Take no more."""
        self._closed = True
        self._news.set()

    async def __anext__(self) -> str:
        await trio.lowlevel.checkpoint()
        while not self._lines:
            if self._closed:
                raise StopAsyncIteration
            # Only a used one is replaced: another task may wait for it.
            if self._news.is_set():
                self._news = trio.Event()
            await self._news.wait()
        return self._lines.popleft()


def _size_of(path: Path) -> int:
    with suppress(OSError):
        return path.lstat().st_size
    return 0


class FileReader(AsyncIterator[str]):
    """Lines that a process writes into a file, from the file's present end until its own."""

    def __init__(self, path: Path, process: Process) -> None:
        self._path = path
        self._process = process
        self._offset = _size_of(path)
        self._framer = LineFramer()
        self._lines: deque[str] = deque()
        self._done = False

    async def __anext__(self) -> str:
        await trio.lowlevel.checkpoint()
        while not self._lines:
            if self._done:
                raise StopAsyncIteration
            # Looked at before the file is read: what an ended process wrote is all there.
            self._done = self._process.ended
            self._read()
            if not self._lines and not self._done:
                await trio.sleep(_FILE_LOOK_INTERVAL_S)
        return self._lines.popleft()

    def _read(self) -> None:
        chunk = read_from(self._path, self._offset, READ_BYTES)
        self._offset += len(chunk)
        self._lines.extend(self._framer.feed(chunk))
        self._done = self._done and len(chunk) < READ_BYTES
        if self._done:
            self._lines.extend(self._framer.close())


def open_log(path: Path, *, through_links: bool = False) -> int:
    """Open a file or device to append a daemon's output to; a new file gets mode 0600.

    Args:
        path: The file.
        through_links: Whether the last part of the path may be a symbolic link.

    Raises:
        OSError: It can't be opened, or is something that would block.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    # O_NONBLOCK: opening a FIFO that nobody reads would block for ever.
    fd = os.open(path, flags | os.O_NONBLOCK | (0 if through_links else os.O_NOFOLLOW), 0o600)
    kind = os.fstat(fd).st_mode
    if stat.S_ISREG(kind) or stat.S_ISCHR(kind):
        os.set_blocking(fd, True)
        return fd
    os.close(fd)
    raise OSError(errno.EINVAL, "is neither a file nor a device", str(path))


def read_end(path: Path, start: int, size: int) -> bytes:
    """Give the last bytes of a file, none from before ``start``; nothing if it can't be read."""
    try:
        return read_from(path, max(start, path.lstat().st_size - size), size)
    except OSError:
        return b""


def read_from(path: Path, offset: int, size: int) -> bytes:
    """Give some bytes of a file; nothing if it can't be read, or is a link or no file."""
    try:
        with open(path, "rb", opener=_open_to_read) as file:
            if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                file.seek(offset)
                return file.read(size)
    except OSError:
        pass
    return b""


def _open_to_read(path: str, flags: int) -> int:
    # Neither a link nor a FIFO that was put there is to lead or to hold us.
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


class Destination:
    """Passes output on to where the user wants it.

    One that fails is logged once and gets no more.
    """

    def __init__(self, name: str, to: Sink | None) -> None:
        self._name = name
        self._file: int | None = None
        self.takes_lines = False
        self._write: Callable[[bytes], object] | None = None
        self._write_line: Callable[[str], object] | None = None
        if isinstance(to, Path):
            self._file = open_log(to, through_links=True)
            self._write = self._append
        elif callable(to):
            self.takes_lines = True
            self._write_line = to
        elif to is not None:
            self._write = _stream_writer(to)

    def feed(self, chunk: bytes) -> None:
        """Pass on bytes as they come."""
        if self._write is not None:
            self._guarded(self._write, chunk)

    def feed_lines(self, lines: list[str]) -> None:
        """Pass on whole lines."""
        for line in lines:
            if self._write_line is not None:
                self._guarded(self._write_line, line)

    def close(self) -> None:
        """Close what was opened here. Calling it again is fine."""
        if self._file is not None:
            os.close(self._file)
        self._file = self._write = self._write_line = None

    def _append(self, chunk: bytes) -> None:
        assert self._file is not None
        while chunk:
            chunk = chunk[os.write(self._file, chunk) :]

    def _guarded(self, write: Callable[..., object], what: bytes | str) -> None:
        try:
            write(what)
        except Exception:
            _log.exception("the output of %s can't be passed on any more", self._name)
            self._write = self._write_line = None


def _stream_writer(stream: "IO[bytes] | IO[str]") -> Callable[[bytes], object]:
    # A text stream over a buffer (sys.stderr) gets the bytes as they are, so nothing is lost in a
    # decoding.
    binary: Any = getattr(stream, "buffer", stream)
    flush: Callable[[], object] | None = getattr(binary, "flush", None)
    # A character may stand half in one chunk and half in the next.
    decoder = codecs.getincrementaldecoder("utf-8")(errors="backslashreplace")

    def write(chunk: bytes) -> None:
        try:
            binary.write(chunk)
        except TypeError:  # a text stream without a buffer, such as io.StringIO
            binary.write(decoder.decode(chunk))
        if flush is not None:
            flush()

    return write


class PipedOutput:
    """Takes a daemon's output from a pipe, so that it never waits, and gives it to who wants it."""

    def __init__(self, name: str, output: Output, read_end: int) -> None:
        self._fd = read_end
        self._destination = Destination(name, output.to)
        self._tail = Tail(output.tail_bytes)
        self._framer = LineFramer()
        self._lines = Lines()
        self.heard_at: float | None = None

    # Ctrl-C may strike in any task that runs Python code; here it would break off the whole owner.
    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Read until the pipe's end, or until it is closed here."""
        with suppress(trio.ClosedResourceError):
            while self._fd >= 0:
                chunk = self._read()
                if chunk is None:
                    await trio.lowlevel.wait_readable(self._fd)
                elif chunk:
                    self.heard_at = trio.current_time()
                    self._take(chunk)
                    # Others must have their turn however much the daemon writes.
                    await trio.lowlevel.checkpoint()
                else:
                    break
        self._finish()

    def take_rest(self) -> None:
        """Take in what is in the pipe now.

        Its end is not waited for: a process outside the tree may hold it.
        """
        room = _MOST_TAKEN_BYTES
        while self._fd >= 0 and room > 0 and (chunk := self._read()):
            self._take(chunk)
            room -= len(chunk)

    def tail(self) -> bytes:
        """Give the end of the output so far."""
        return bytes(self._tail)

    def lines(self, process: Process) -> AsyncIterator[str]:
        """Give the lines that come from now on."""
        return self._lines.read()

    def close(self) -> None:
        """Let go of the pipe and of what was opened. Calling it again is fine."""
        if self._fd >= 0:
            trio.lowlevel.notify_closing(self._fd)
            os.close(self._fd)
            self._fd = -1
        self._finish()

    def _read(self) -> bytes | None:
        try:
            return os.read(self._fd, READ_BYTES)
        except BlockingIOError:
            return None

    def _take(self, chunk: bytes) -> None:
        self._tail.feed(chunk)
        self._destination.feed(chunk)
        if self._destination.takes_lines or self._lines.wanted:
            self._pass_on(self._framer.feed(chunk))
        else:
            self._framer.skip(chunk)

    def _pass_on(self, lines: list[str]) -> None:
        self._destination.feed_lines(lines)
        self._lines.feed(lines)

    def _finish(self) -> None:
        self._pass_on(self._framer.close())
        self._destination.close()
        self._lines.close()


class FileOutput:
    """The log file of a daemon that writes to it itself.

    Attributes:
        path: Where it is.
    """

    def __init__(self, path: Path, tail_bytes: int, start: int) -> None:
        self.path = path
        self._tail_bytes = tail_bytes
        self._start = self._seen_size = start
        self._heard_at: float | None = None

    @property
    def heard_at(self) -> float | None:
        """When the file was first seen to have grown to what it is now."""
        size = _size_of(self.path)
        if size != self._seen_size:
            self._seen_size, self._heard_at = size, trio.current_time()
        return self._heard_at

    async def run(self) -> None:
        """Nothing is to be moved."""

    def take_rest(self) -> None:
        """Nothing is to be moved."""

    def close(self) -> None:
        """Nothing is open."""

    def tail(self) -> bytes:
        """Give the end of what was written since the spawn."""
        return read_end(self.path, self._start, self._tail_bytes)

    def lines(self, process: Process) -> AsyncIterator[str]:
        """Give the lines that come from now on; the file is looked at again and again."""
        return FileReader(self.path, process)


# What a pipe can hold at most for an ordinary user (pipe(7), pipe-max-size): a stray that still
# writes must not keep us here for ever.
_MOST_TAKEN_BYTES: Final = 1_048_576

# A file can't be waited for. Nobody reads a log faster than this.
_FILE_LOOK_INTERVAL_S: Final = 0.05
