"""Output on its way: the tail, lines for readers, files that are read while they grow."""

import gc
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from trio_lifecycle._output import FileOutput
from trio_lifecycle._output._file import READ_BYTES, FileReader
from trio_lifecycle._output._lines import LINES_KEPT_FOR_A_READER, LineReader, Lines
from trio_lifecycle._output._opening import read_end, read_from
from trio_lifecycle._output._tail import Tail
from trio_lifecycle.abc import Process


class Life:
    """As much of a process as a reader of its file asks for."""

    ended = False


@pytest.fixture
def life() -> Life:
    return Life()


def process(life: Life) -> Process:
    return cast("Process", life)


async def rest_of(lines: "LineReader | FileReader") -> list[str]:
    return [line async for line in lines]


# --- the tail -------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=20)), st.integers(0, 30))
def test_the_tail_is_the_last_bytes_however_they_came(chunks: list[bytes], size: int) -> None:
    tail = Tail(size)
    for chunk in chunks:
        tail.feed(chunk)
    whole = b"".join(chunks)
    assert whole[max(0, len(whole) - size) :] == bytes(tail)


def test_the_tail_of_a_flood_is_cut_to_its_size() -> None:
    tail = Tail(10)
    for number in range(1000):
        tail.feed(b"%09d\n" % number)
    assert b"000000999\n" == bytes(tail)


# --- lines for readers ----------------------------------------------------------------------------


async def test_every_reader_gets_every_line_at_its_own_pace() -> None:
    lines = Lines()
    one, two = lines.read(), lines.read()
    lines.feed(["a", "b"])
    assert "a" == await anext(one)
    lines.feed(["c"])
    lines.close()
    assert ["b", "c"] == await rest_of(one)
    assert ["a", "b", "c"] == await rest_of(two)


async def test_a_reader_gets_the_lines_from_now_on() -> None:
    lines = Lines()
    lines.feed(["before"])
    reader = lines.read()
    lines.feed(["after"])
    lines.close()
    assert ["after"] == await rest_of(reader)


async def test_a_reader_that_comes_after_the_end_gets_nothing() -> None:
    lines = Lines()
    lines.close()
    assert [] == await rest_of(lines.read())


async def test_a_reader_that_is_ahead_waits_for_the_next_line(
    autojump_clock: trio.testing.MockClock,
) -> None:
    lines = Lines()
    got: list[tuple[float, str]] = []
    began = trio.current_time()

    async def read(reader: LineReader) -> None:
        async for line in reader:
            got.append((trio.current_time() - began, line))  # noqa: PERF401 - one at a time

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read, lines.read())
        for line in "abc":
            await trio.sleep(1)
            lines.feed([line])
        await trio.sleep(1)
        lines.close()
    assert [(1.0, "a"), (2.0, "b"), (3.0, "c")] == got


async def test_two_tasks_that_share_a_reader_share_its_lines_and_both_end() -> None:
    lines = Lines()
    reader = lines.read()
    got: list[str] = []

    async def read() -> None:
        async for line in reader:
            got.append(line)  # noqa: PERF401 - one at a time

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        for line in "abc":
            lines.feed([line])
            await trio.testing.wait_all_tasks_blocked()
        lines.close()
    assert ["a", "b", "c"] == got


async def test_a_reader_that_is_too_slow_loses_the_oldest_lines() -> None:
    lines = Lines()
    slow, quick = lines.read(), lines.read()
    extra = 5
    for number in range(LINES_KEPT_FOR_A_READER + extra):
        lines.feed([str(number)])
        assert str(number) == await anext(quick)
    lines.close()
    left = await rest_of(slow)
    assert LINES_KEPT_FOR_A_READER == len(left)
    assert (str(extra), str(LINES_KEPT_FOR_A_READER + extra - 1)) == (left[0], left[-1])


async def test_a_cancelled_reader_loses_no_line() -> None:
    lines = Lines()
    reader = lines.read()
    with trio.move_on_after(0):
        await anext(reader)
    lines.feed(["a"])
    with trio.move_on_after(0):
        await anext(reader)
    assert "a" == await anext(reader)


async def test_feeding_no_lines_wakes_nobody() -> None:
    lines = Lines()
    reader = lines.read()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(anext, reader)
        await trio.testing.wait_all_tasks_blocked()
        lines.feed([])
        await trio.testing.wait_all_tasks_blocked()
        assert 1 == len(nursery.child_tasks)
        lines.feed(["a"])


def test_lines_are_wanted_while_a_reader_is_held() -> None:
    lines = Lines()
    seen = [lines.wanted]
    reader = lines.read()
    seen.append(lines.wanted)
    del reader
    gc.collect()
    seen.append(lines.wanted)
    assert [False, True, False] == seen


# --- files that grow ------------------------------------------------------------------------------


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


async def test_a_file_is_read_from_its_present_end_until_the_process_ends(
    tmp_path: Path, life: Life, autojump_clock: trio.testing.MockClock
) -> None:
    path = tmp_path / "q.log"
    append(path, b"old\n")
    reader = FileReader(path, process(life))
    got: list[str] = []

    async def read() -> None:
        got.extend(await rest_of(reader))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        for data in (b"a\nb", b"c\n", b"last"):
            await trio.sleep(1)
            append(path, data)
        await trio.sleep(1)
        life.ended = True
    assert ["a", "bc", "last"] == got


async def test_a_line_of_a_file_comes_within_a_tenth_of_a_second(
    tmp_path: Path, life: Life, autojump_clock: trio.testing.MockClock
) -> None:
    path = tmp_path / "q.log"
    reader = FileReader(path, process(life))
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def write() -> None:
            await trio.sleep(1)
            append(path, b"a\n")

        began = trio.current_time()
        assert "a" == await anext(reader)
        assert 1.0 <= trio.current_time() - began <= 1.1


async def test_a_file_that_is_not_there_yet_is_read_from_its_beginning(
    tmp_path: Path, life: Life
) -> None:
    reader = FileReader(tmp_path / "q.log", process(life))
    append(tmp_path / "q.log", b"first\n")
    life.ended = True
    assert ["first"] == await rest_of(reader)


async def test_a_file_that_was_truncated_is_read_from_its_beginning(
    tmp_path: Path, life: Life
) -> None:
    path = tmp_path / "q.log"
    append(path, b"old, and longer\n")
    reader = FileReader(path, process(life))
    append(path, b"one\nhalf")
    assert "one" == await anext(reader)
    path.write_bytes(b"new\n")
    assert "half" == await anext(reader)
    life.ended = True
    assert ["new"] == await rest_of(reader)
    assert b"new\n" == read_end(path, 5, 100)


async def test_a_file_that_never_comes_gives_no_line(tmp_path: Path, life: Life) -> None:
    life.ended = True
    assert [] == await rest_of(FileReader(tmp_path / "q.log", process(life)))


@pytest.mark.parametrize("size", [READ_BYTES - 1, READ_BYTES, 3 * READ_BYTES, 3 * READ_BYTES + 5])
async def test_all_that_an_ended_process_wrote_is_read_whatever_its_size(
    tmp_path: Path, life: Life, size: int
) -> None:
    path = tmp_path / "q.log"
    reader = FileReader(path, process(life))
    append(path, (b"x" * 99 + b"\n") * (size // 100) + b"y" * (size % 100))
    life.ended = True
    lines = await rest_of(reader)
    assert (size // 100, "y" * (size % 100)) == (lines.count("x" * 99), lines[-1])


def test_the_end_of_a_file_holds_nothing_from_before_the_start(tmp_path: Path) -> None:
    path = tmp_path / "q.log"
    append(path, b"old new")
    assert b"new" == read_end(path, 4, 100)
    assert b"ew" == read_end(path, 4, 2)
    assert b"" == read_end(path, 7, 100)


@pytest.mark.parametrize("read", [read_end, read_from])
def test_a_file_that_can_not_be_read_gives_nothing(
    tmp_path: Path, read: Callable[[Path, int, int], bytes]
) -> None:
    assert b"" == read(tmp_path / "none", 0, 10)
    assert b"" == read(tmp_path, 0, 10)


async def test_the_output_of_a_daemon_that_writes_its_own_file(tmp_path: Path, life: Life) -> None:
    path = tmp_path / "q.log"
    append(path, b"of another spawn\n")
    output = FileOutput(path, 6, path.stat().st_size)
    assert b"" == output.tail()
    reader = output.lines(process(life))
    append(path, b"hello\nyou\n")
    await output.run()
    output.take_rest()
    output.close()
    life.ended = True
    assert b"o\nyou\n" == output.tail()
    assert ["hello", "you"] == [line async for line in reader]


async def test_lines_of_a_file_that_can_not_be_looked_at_are_none(
    tmp_path: Path, life: Life
) -> None:
    life.ended = True
    reader = FileReader(tmp_path / ("x" * 300), process(life))
    with pytest.raises(StopAsyncIteration):
        await anext(reader)
