"""Output through a real pipe, and on to where the user wants it."""

import io
import logging
import os
import stat
import sys
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import trio
import trio.testing

from trio_lifecycle._destination import Output
from trio_lifecycle._output import PipedOutput, open_log
from trio_lifecycle._output._sink import Destination
from trio_lifecycle.abc import Process

NOBODY = cast("Process", None)
FLOOD_BYTES = 10_000_000


class Pipe:
    """A pipe with our reader at one end."""

    def __init__(self, output: Output) -> None:
        self.read_end, self.write_end = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self.read_end, False)
        self.output = PipedOutput("queen", output, self.read_end)

    def write(self, data: bytes) -> None:
        os.write(self.write_end, data)

    def end(self) -> None:
        if self.write_end >= 0:
            os.close(self.write_end)
        self.write_end = -1


@pytest.fixture
async def pipe() -> AsyncIterator[Callable[..., Pipe]]:
    """Make pipes, and close them at the end."""
    pipes: list[Pipe] = []

    def make(tail_bytes: int = 100, to: Any = None) -> Pipe:
        pipes.append(Pipe(Output(tail_bytes, to)))
        return pipes[-1]

    yield make
    for each in pipes:
        each.output.close()
        each.end()


MakePipe = Callable[..., Pipe]


def one_complaint(caplog: pytest.LogCaptureFixture) -> str:
    """The one thing that was logged."""
    (record,) = caplog.records
    assert ("trio_lifecycle", logging.ERROR) == (record.name, record.levelno)
    return record.getMessage()


COMPLAINT = "the output of queen can't be passed on any more"

# --- destinations ---------------------------------------------------------------------------------


def pass_on(to: Any, *chunks: bytes) -> Destination:
    destination = Destination("queen", Output(to=to))
    for chunk in chunks:
        destination.feed(chunk)
    return destination


def test_a_file_is_made_with_mode_0600_and_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "q.log"
    before = os.umask(0)
    try:
        for chunk in (b"one\n", b"two\n"):
            pass_on(path, chunk).close()
    finally:
        os.umask(before)
    assert b"one\ntwo\n" == path.read_bytes()
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)


def test_a_log_is_opened_through_a_symbolic_link_only_where_that_is_wanted(
    tmp_path: Path,
) -> None:
    (tmp_path / "target").write_bytes(b"precious")
    (tmp_path / "q.log").symlink_to(tmp_path / "target")
    os.close(open_log(tmp_path / "q.log", through_links=True))
    with pytest.raises(OSError, match="symbolic links"):
        open_log(tmp_path / "q.log")
    assert b"precious" == (tmp_path / "target").read_bytes()


def test_the_descriptor_of_a_log_is_not_inherited(tmp_path: Path) -> None:
    log = open_log(tmp_path / "q.log")
    try:
        assert not os.get_inheritable(log)
    finally:
        os.close(log)


def test_a_closed_destination_gets_no_more_and_can_be_closed_again(tmp_path: Path) -> None:
    destination = pass_on(tmp_path / "q.log", b"a")
    destination.close()
    destination.feed(b"b")
    destination.close()
    assert b"a" == (tmp_path / "q.log").read_bytes()


def test_a_binary_stream_gets_the_bytes_as_they_are() -> None:
    stream = io.BytesIO()
    pass_on(stream, b"\xff\n", b"\xc3")
    assert b"\xff\n\xc3" == stream.getvalue()


def test_a_text_stream_over_a_buffer_gets_the_bytes_at_once_and_as_they_are() -> None:
    buffer = io.BytesIO()
    stream = io.TextIOWrapper(io.BufferedWriter(cast("io.RawIOBase", buffer)), encoding="ascii")
    pass_on(stream, b"\xc3\xa9")
    assert b"\xc3\xa9" == buffer.getvalue()


def test_a_text_stream_without_a_buffer_gets_text_even_when_a_chunk_ends_within_a_character() -> (
    None
):
    stream = io.StringIO()
    pass_on(stream, b"caf\xc3", b"\xa9 \xff\n")
    assert "café \\xff\n" == stream.getvalue()


def test_a_stream_that_can_only_write_is_enough(caplog: pytest.LogCaptureFixture) -> None:
    got: list[bytes] = []

    class Bare:
        def write(self, chunk: bytes) -> None:
            got.append(chunk)

    pass_on(Bare(), b"a", b"b")
    assert ([b"a", b"b"], []) == (got, caplog.records)


def test_a_stream_that_raises_is_logged_once_and_gets_no_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stream = io.BytesIO()
    stream.close()
    pass_on(stream, b"a", b"b")
    assert COMPLAINT == one_complaint(caplog)


def test_a_callable_that_raises_is_logged_once_and_gets_no_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    got: list[str] = []

    def take(line: str) -> None:
        got.append(line)
        raise ValueError("no more, please")

    destination = Destination("queen", Output(to=take))
    destination.feed_lines(["a", "b"])
    destination.feed_lines(["c"])
    assert ["a"] == got
    assert COMPLAINT == one_complaint(caplog)


# --- through a pipe -------------------------------------------------------------------------------


async def test_tail_file_and_readers_all_get_the_output(pipe: MakePipe, tmp_path: Path) -> None:
    made = pipe(7, tmp_path / "q.log")
    reader = made.output.lines(NOBODY)
    made.write(b"hello\nyo")
    made.write(b"u\nend")
    made.end()
    await made.output.run()
    assert b"you\nend" == made.output.tail()
    assert b"hello\nyou\nend" == (tmp_path / "q.log").read_bytes()
    assert ["hello", "you", "end"] == [line async for line in reader]


async def test_a_callable_gets_whole_lines_and_the_unfinished_last_one(pipe: MakePipe) -> None:
    got: list[str] = []
    made = pipe(0, got.append)
    made.write(b"a\r\nb")
    made.end()
    await made.output.run()
    assert (["a", "b"], b"") == (got, made.output.tail())


async def test_what_a_hearing_takes_out_of_the_pipe_is_a_sign_of_life(pipe: MakePipe) -> None:
    made, heard = pipe(), list[str]()
    hearing = made.output.hear_lines(NOBODY, heard.extend)
    hearing.look()
    moments = [made.output.heard_at]
    made.write(b"loading\n")
    hearing.look()
    moments.append(made.output.heard_at)
    assert (["loading"], [True, False]) == (heard, [moment is None for moment in moments])


async def test_a_reader_that_comes_in_the_middle_of_a_line_gets_it_whole(pipe: MakePipe) -> None:
    made = pipe()
    made.write(b"unseen\nbeg")
    made.output.take_rest()
    reader = made.output.lines(NOBODY)
    made.write(b"un\n")
    made.end()
    await made.output.run()
    assert ["begun"] == [line async for line in reader]


async def test_a_reader_that_raises_in_the_users_callable_does_not_stop_the_reading(
    pipe: MakePipe, caplog: pytest.LogCaptureFixture
) -> None:
    def take(line: str) -> None:
        raise RuntimeError(line)

    made = pipe(100, take)
    made.write(b"a\nb\n")
    made.end()
    await made.output.run()
    assert b"a\nb\n" == made.output.tail()
    assert COMPLAINT == one_complaint(caplog)


@pytest.mark.fault(34)
async def test_a_full_disk_costs_the_log_but_neither_the_tail_nor_the_app(
    pipe: MakePipe, caplog: pytest.LogCaptureFixture
) -> None:
    made = pipe(100, Path("/dev/full"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.output.run)
        for line in (b"one\n", b"two\n"):
            made.write(line)
            await trio.testing.wait_all_tasks_blocked()
        made.end()
    assert b"one\ntwo\n" == made.output.tail()
    assert COMPLAINT == one_complaint(caplog)
    assert "No space left on device" in caplog.text


@pytest.mark.fault(35)
async def test_a_flood_is_taken_at_once_although_a_reader_sleeps(pipe: MakePipe) -> None:
    made = pipe(20)
    sleeper = made.output.lines(NOBODY)
    code = f"import os\nfor _ in range({FLOOD_BYTES} // 100): os.write(1, b'x' * 99 + b'\\n')\n"
    code += "os.write(1, b'last words\\n')"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.output.run)
        # It returns only when the program has ended: nobody but us can have emptied the pipe.
        await trio.run_process([sys.executable, "-c", code], stdout=made.write_end)
        made.end()
    assert b"xxxxxxxx\nlast words\n" == made.output.tail()
    assert "x" * 99 == await anext(sleeper)


async def flooding(pipe: Pipe, nursery: trio.Nursery) -> None:
    """Let a program write without end, and return when it has begun."""
    flood = partial(trio.run_process, ["yes"], stdout=pipe.write_end)
    await nursery.start(flood)
    await trio.lowlevel.wait_readable(pipe.read_end)


@pytest.mark.fault(35)
async def test_others_have_their_turn_while_a_daemon_floods(pipe: MakePipe) -> None:
    made = pipe(20)
    turns = 0
    async with trio.open_nursery() as nursery:
        await flooding(made, nursery)
        nursery.start_soon(made.output.run)
        while turns < 100:
            await trio.lowlevel.checkpoint()
            turns += 1
        nursery.cancel_scope.cancel()
    assert 100 == turns
    assert b"y\n" * 10 == made.output.tail()


async def test_the_rest_is_taken_without_waiting_for_a_grandchild_that_holds_the_pipe(
    pipe: MakePipe,
) -> None:
    made = pipe()
    # The shell ends at once, and what it started keeps the pipe open.
    command = "sleep 60 & echo $!; echo done"
    await trio.run_process(["/bin/sh", "-c", command], stdout=made.write_end)
    made.end()
    made.output.take_rest()
    holder, word = made.output.tail().split()
    try:
        assert b"done" == word
    finally:
        os.kill(int(holder), 9)


async def test_a_stray_that_floods_does_not_keep_the_last_look_for_ever(pipe: MakePipe) -> None:
    made = pipe(20)
    async with trio.open_nursery() as nursery:
        await flooding(made, nursery)
        made.output.take_rest()
        assert b"y\n" * 10 == made.output.tail()
        nursery.cancel_scope.cancel()


async def test_closing_ends_a_reading_that_waits_and_everything_that_reads_its_lines(
    pipe: MakePipe,
) -> None:
    made = pipe()
    reader = made.output.lines(NOBODY)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.output.run)
        made.write(b"unfinished")
        await trio.testing.wait_all_tasks_blocked()
        made.output.close()
        made.output.close()
    assert ["unfinished"] == [line async for line in reader]


async def test_a_closed_output_reads_no_descriptor_that_took_its_number(pipe: MakePipe) -> None:
    made = pipe()
    made.write(b"ours\n")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.output.run)
        made.output.take_rest()
        made.output.close()
        read_end, write_end = os.pipe()
        os.write(write_end, b"theirs\n")
    made.output.take_rest()
    try:
        assert b"ours\n" == made.output.tail()
        assert b"theirs\n" == os.read(read_end, 100)
    finally:
        os.close(read_end)
        os.close(write_end)
