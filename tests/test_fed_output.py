"""Output that is fed: to the tail, to readers, and on to where the user wants it."""

from pathlib import Path
from typing import cast

from trio_lifecycle._destination import Output
from trio_lifecycle._output import FedOutput
from trio_lifecycle.abc import Process

NOBODY = cast("Process", None)


async def test_tail_file_and_readers_all_get_what_is_fed(tmp_path: Path) -> None:
    output = FedOutput("queen", Output(7, tmp_path / "q.log"))
    reader = output.lines(NOBODY)
    for chunk in (b"hello\nyo", b"u\nend"):
        output.feed(chunk)
    output.finish()
    assert b"you\nend" == output.tail()
    assert b"hello\nyou\nend" == (tmp_path / "q.log").read_bytes()
    assert ["hello", "you", "end"] == [line async for line in reader]


async def test_a_hearing_hears_lines_as_they_are_fed_until_it_is_closed() -> None:
    output, heard = FedOutput("queen", Output()), list[str]()
    hearing = output.hear_lines(NOBODY, heard.extend)
    output.feed(b"one\ntw")
    hearing.look()
    assert ["one"] == heard
    output.feed(b"o\n")
    hearing.close()
    output.feed(b"three\n")
    output.close()
    assert ["one", "two"] == heard


async def test_only_what_is_fed_is_a_sign_of_life() -> None:
    output = FedOutput("queen", Output())
    output.feed(b"")
    output.take_rest()
    moments = [output.heard_at]
    output.feed(b"loading")
    moments.append(output.heard_at)
    assert [True, False] == [moment is None for moment in moments]
    output.close()


async def test_what_comes_after_the_end_is_dropped_and_the_end_may_come_twice() -> None:
    got: list[str] = []
    output = FedOutput("queen", Output(to=got.append))
    output.feed(b"a\nb")
    output.finish()
    output.feed(b"late\n")
    output.close()
    assert (["a", "b"], b"a\nb") == (got, output.tail())


async def test_a_secret_that_is_fed_in_two_chunks_goes_nowhere_but_to_the_ready_mode() -> None:
    got: list[str] = []
    heard: list[str] = []
    output = FedOutput("queen", Output(to=got.append), ["hunter2"])
    hearing = output.hear_lines(NOBODY, heard.extend)
    output.feed(b"key hunt")
    output.feed(b"er2\n")
    output.close()
    assert b"hunter2" not in output.tail()
    assert "hunter2" not in got[0]
    hearing.close()
    assert ["key hunter2"] == heard
