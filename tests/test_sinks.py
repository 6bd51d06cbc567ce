"""Output on its way out: heads of lines, rotated files, secrets; whatever the chunks."""

import io
import itertools
import logging
import os
import re
import resource
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import PATIENCE_S, python_daemon, shell_daemon
from trio_lifecycle import ConfigError, DaemonLifecycle, MemoryRegistry
from trio_lifecycle._destination import Output, Rotate
from trio_lifecycle._framing import LONGEST_LINE_BYTES
from trio_lifecycle._output import PipedOutput
from trio_lifecycle._output._head import timestamp
from trio_lifecycle._output._sink import Destination

STAMP = rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d"
SECRET = "abba"

DATA = st.lists(
    st.sampled_from([b"a", b"b", b"\n", b"\r\n", "é".encode(), b"\xff", b"ab", b"abba"])
).map(b"".join)
CUTS = st.lists(st.integers(0, 1000))


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    """The data in pieces, cut at these places."""
    places = [0, *sorted(place % (len(data) + 1) for place in cuts), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(places)]


def pass_on(output: Output, *chunks: bytes) -> None:
    destination = Destination("queen", output)
    for chunk in chunks:
        destination.feed(chunk)
    destination.close()


def through_a_pipe(output: Output, chunks: list[bytes], *secrets: str) -> PipedOutput:
    """Have output taken chunk by chunk until its end."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(read_end, False)
    piped = PipedOutput("queen", output, read_end, secrets)
    for chunk in filter(None, chunks):
        os.write(write_end, chunk)
        piped.take_rest()
    os.close(write_end)
    # Its end is met outside of any event loop, where nobody waits for the pipe.
    piped.finish()
    os.close(read_end)
    return piped


# --- heads of lines -------------------------------------------------------------------------------


def test_each_line_begins_with_time_and_prefix_and_the_last_is_ended() -> None:
    stream = io.BytesIO()
    pass_on(Output(to=stream, timestamps=True, prefix="db: "), b"one\r\ntw", b"o \xff\n\nunfin")
    heads = [
        re.fullmatch(rb"(%b) db: (.*)" % STAMP, line)
        for line in stream.getvalue().split(b"\n")[:-1]
    ]
    assert [b"one\r", b"two \xff", b"", b"unfin"] == [head[2] for head in heads if head]
    assert stream.getvalue().endswith(b"\n")


def test_a_callable_gets_lines_with_their_heads_and_escapes() -> None:
    lines: list[str] = []
    output = Output(to=lines.append, timestamps=True, prefix="db: ")
    through_a_pipe(output, [b"on", b"e\r\n\xff"])
    heads = [re.fullmatch(rf"{STAMP.decode()} db: (.*)", line) for line in lines]
    assert ["one", "\\xff"] == [head[1] for head in heads if head]


@given(DATA, CUTS)
def test_any_chunks_give_the_same_lines_with_their_prefix(data: bytes, cuts: list[int]) -> None:
    stream = io.BytesIO()
    pass_on(Output(to=stream, prefix="db: "), *cut(data, cuts))
    lines = data.removesuffix(b"\n").split(b"\n") if data else []
    assert b"".join(b"db: %b\n" % line for line in lines) == stream.getvalue()


def test_the_parts_of_a_line_over_the_bound_have_heads_and_all_but_the_last_marks() -> None:
    stream = io.BytesIO()
    pass_on(Output(to=stream, prefix="> "), b"x" * LONGEST_LINE_BYTES + b"y\n")
    assert b"> %b [...]\n> y\n" % (b"x" * LONGEST_LINE_BYTES) == stream.getvalue()


def test_what_is_passed_on_raw_has_no_marks() -> None:
    stream = io.BytesIO()
    data = b"x" * LONGEST_LINE_BYTES + b"y"
    pass_on(Output(to=stream), data)
    assert data == stream.getvalue()


def test_the_tail_has_no_heads() -> None:
    piped = through_a_pipe(Output(to=io.BytesIO(), timestamps=True, prefix="> "), [b"a\nb"])
    assert b"a\nb" == piped.tail()


@pytest.mark.parametrize(
    ("zone", "seconds", "shown"),
    [
        ("UTC0", 0.25, "1970-01-01T00:00:00.250+00:00"),
        # Clocks go back at 1:00 UTC on 25 October 2026, so that 2:30 comes twice.
        ("CET-1CEST,M3.5.0,M10.5.0/3", 1792888200.0, "2026-10-25T02:30:00.000+02:00"),
        ("CET-1CEST,M3.5.0,M10.5.0/3", 1792891800.0, "2026-10-25T02:30:00.000+01:00"),
    ],
)
def test_a_time_is_local_and_can_not_be_mistaken(
    monkeypatch: pytest.MonkeyPatch, zone: str, seconds: float, shown: str
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert shown == timestamp(seconds)
        assert seconds == datetime.fromisoformat(shown).timestamp()
    finally:
        monkeypatch.undo()
        time.tzset()


# --- streams --------------------------------------------------------------------------------------


def test_a_character_that_never_ends_is_no_loss_for_a_text_stream() -> None:
    stream = io.StringIO()
    pass_on(Output(to=stream), b"caf\xc3")
    assert "caf\\xc3" == stream.getvalue()


class Sip(io.RawIOBase):
    """A raw stream that takes three bytes at once, and at some time nothing."""

    def __init__(self, most: int = 1000) -> None:
        super().__init__()
        self.got = b""
        self.most = most

    def writable(self) -> bool:
        return True

    def write(self, chunk: Any) -> int | None:
        taken = bytes(chunk[:3])
        if len(self.got) + len(taken) > self.most:
            return None
        self.got += taken
        return len(taken)


def test_an_unbuffered_stream_that_takes_little_at_once_gets_all() -> None:
    stream = Sip()
    pass_on(Output(to=cast("Any", stream)), b"one\ntwo\nthree\n")
    assert b"one\ntwo\nthree\n" == stream.got


def test_an_unbuffered_stream_that_takes_no_more_is_given_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pass_on(Output(to=cast("Any", Sip(5))), b"one two", b"three")
    assert 1 == len(caplog.records)


# --- rotated files --------------------------------------------------------------------------------


def files_of(path: Path) -> list[bytes]:
    """What is in the files, the oldest first."""
    numbers = sorted(path.parent.glob("q.log.*"), key=lambda file: -int(file.suffix[1:]))
    return [file.read_bytes() for file in [*numbers, path]]


def test_a_file_makes_room_before_it_becomes_too_large(tmp_path: Path) -> None:
    path = tmp_path / "q.log"
    pass_on(
        Output(to=path, rotate=Rotate(10, 3)), b"one\ntwo\nthree\n", b"fo", b"ur\nfive\nsix\n", b"x"
    )
    assert [b"three\n", b"four\nfive\n", b"six\nx"] == files_of(path)
    assert {0o600} == {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}


@settings(max_examples=50)
@given(DATA, CUTS, st.integers(1, 12))
def test_nothing_is_lost_no_file_too_large_and_no_line_that_fits_is_cut(
    data: bytes, cuts: list[int], size: int
) -> None:
    with TemporaryDirectory() as place:
        path = Path(place) / "q.log"
        pass_on(Output(to=path, rotate=Rotate(size, 1000)), *cut(data, cuts))
        files = files_of(path)
    assert data == b"".join(files)
    assert all(len(file) <= size for file in files)
    lines = data.split(b"\n")
    whole = [line for file in files for line in file.split(b"\n")]
    assert all(line in whole for line in lines if len(line) < size)


def test_a_file_of_an_earlier_run_that_is_too_large_makes_room_at_once(tmp_path: Path) -> None:
    path = tmp_path / "q.log"
    path.write_bytes(b"earlier, and long\n")
    pass_on(Output(to=path, rotate=Rotate(10)), b"new\n")
    assert [b"earlier, and long\n", b"new\n"] == files_of(path)


def test_with_one_file_kept_what_was_earlier_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "q.log"
    pass_on(Output(to=path, rotate=Rotate(5, 1)), b"one\n", b"two\n")
    assert [b"two\n"] == files_of(path)


def test_a_line_without_end_goes_into_the_file_part_by_part(tmp_path: Path) -> None:
    path = tmp_path / "q.log"
    destination = Destination("queen", Output(to=path, rotate=Rotate(1_000_000)))
    destination.feed(b"x" * LONGEST_LINE_BYTES)
    assert b"" == path.read_bytes()
    destination.feed(b"x")
    assert LONGEST_LINE_BYTES + 1 == path.stat().st_size
    destination.close()


def test_lines_with_heads_are_rotated_with_them(tmp_path: Path) -> None:
    path = tmp_path / "q.log"
    pass_on(Output(to=path, prefix="> ", rotate=Rotate(10)), b"one\ntwo\n", b"last")
    assert [b"> one\n", b"> two\n", b"> last\n"] == files_of(path)


def test_the_file_behind_a_link_is_rotated_beside_itself(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    link = tmp_path / "q.log"
    link.symlink_to(tmp_path / "data/q.log")
    pass_on(Output(to=link, rotate=Rotate(5)), b"one\n", b"two\n")
    assert link.is_symlink()
    assert [b"one\n", b"two\n"] == files_of(tmp_path / "data/q.log")


def test_a_file_that_another_program_has_rotated_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "q.log"
    destination = Destination("queen", Output(to=path, rotate=Rotate(5)))
    destination.feed(b"one\n")
    path.rename(tmp_path / "elsewhere")
    destination.feed(b"two\n")
    destination.close()
    assert ([b"two\n"], b"one\n") == (files_of(path), (tmp_path / "elsewhere").read_bytes())


def test_a_device_is_never_rotated(caplog: pytest.LogCaptureFixture) -> None:
    pass_on(Output(to="/dev/null", rotate=Rotate(1)), b"one\ntwo\n")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    assert [] == caplog.records


def test_a_new_file_is_ours_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        pass_on(Output(to=tmp_path / "q.log", rotate=Rotate(5)), b"one\n", b"two\n")
    finally:
        os.umask(before)
    assert {0o600} == {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}


# --- rotations that fail --------------------------------------------------------------------------


COMPLAINT = "the output of queen goes on into a file that can't be rotated: "


def one_complaint(caplog: pytest.LogCaptureFixture) -> str:
    """The one thing that was logged."""
    (record,) = caplog.records
    assert ("trio_lifecycle", logging.ERROR) == (record.name, record.levelno)
    return record.getMessage()


def test_what_is_in_the_way_of_a_rotation_costs_no_output(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "q.log"
    (tmp_path / "q.log.1").mkdir()
    pass_on(Output(to=path, rotate=Rotate(5, 2)), b"one\n", b"two\n", b"three\n", b"4\n")
    assert b"one\ntwo\nthree\n4\n" == path.read_bytes()
    assert one_complaint(caplog).startswith(COMPLAINT)


def test_a_rotation_that_failed_is_tried_again_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "q.log"
    (tmp_path / "q.log.1").mkdir()
    destination = Destination("queen", Output(to=path, rotate=Rotate(5, 2)))
    for chunk in (b"one\n", b"two\n"):
        destination.feed(chunk)
    (tmp_path / "q.log.1").rmdir()
    destination.feed(b"last\n")
    destination.close()
    assert [b"one\ntwo\n", b"last\n"] == files_of(path)
    assert one_complaint(caplog).startswith(COMPLAINT)


def test_a_directory_that_is_gone_costs_no_output(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "logs"
    place.mkdir()
    kept = tmp_path / "kept"
    destination = Destination("queen", Output(to=place / "q.log", rotate=Rotate(5)))
    destination.feed(b"one\n")
    os.link(place / "q.log", kept)
    (place / "q.log").unlink()
    place.rmdir()
    for chunk in (b"two\n", b"three\n"):
        destination.feed(chunk)
    destination.close()
    assert b"one\ntwo\nthree\n" == kept.read_bytes()
    assert one_complaint(caplog).startswith(COMPLAINT)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's file")
def test_a_file_of_another_user_is_not_rotated(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "q.log"
    path.touch()
    os.chown(path, 12345, 12345)
    pass_on(Output(to=path, rotate=Rotate(5)), b"one\n", b"two\n")
    assert b"one\ntwo\n" == path.read_bytes()
    assert "belongs to another user" in one_complaint(caplog)


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """Let files become no larger than this, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.fault(34)
@pytest.mark.parametrize(
    "settings",
    [{}, {"rotate": Rotate(1000)}, {"prefix": "> "}, {"prefix": "> ", "rotate": Rotate(1000)}],
    ids=repr,
)
def test_a_full_disk_is_logged_once_and_costs_only_the_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, settings: dict[str, Any]
) -> None:
    output = Output(to=tmp_path / "q.log", **settings)
    with files_up_to(20):
        piped = through_a_pipe(output, [b"one two three\n", b"four five six\nun", b"finished"])
        (record,) = caplog.records
    assert "the output of queen can't be passed on any more" == record.getMessage()
    assert b"one two three\nfour five six\nunfinished" == piped.tail()


# --- secrets --------------------------------------------------------------------------------------


def gather(make: Callable[[Any], Output]) -> tuple[Output, Callable[[], str]]:
    """Output into a list of lines or a stream, and how to see it all."""
    stream, lines = io.BytesIO(), list[str]()
    output = make((stream, lines.append))
    return output, lambda: stream.getvalue().decode(errors="backslashreplace") + "\n".join(lines)


@pytest.mark.parametrize("to", [0, 1], ids=["stream", "callable"])
@pytest.mark.parametrize("prefix", ["", "> "], ids=repr)
@settings(max_examples=40)
@given(data=DATA, cuts=CUTS)
def test_a_secret_is_in_no_sink_and_no_tail_however_it_came(
    to: int, prefix: str, data: bytes, cuts: list[int]
) -> None:
    output, shown = gather(lambda sinks: Output(to=sinks[to], prefix=prefix))
    piped = through_a_pipe(output, cut(data, cuts), SECRET)
    assert SECRET not in shown()
    assert SECRET.encode() not in piped.tail()
    if SECRET.encode() not in data:
        assert data == piped.tail()


def test_with_secrets_a_raw_sink_still_gets_all_else_as_it_is() -> None:
    stream = io.BytesIO()
    through_a_pipe(Output(to=stream), [b"my ab", b"ba \xff\r\nabb", b"ot ab"], SECRET)
    assert b"my *** \xff\r\nabbot ab" == stream.getvalue()


def test_a_secret_across_the_bound_of_lines_is_blotted_out() -> None:
    lines: list[str] = []
    data = b"x" * (LONGEST_LINE_BYTES - 2) + b"abba!\n"
    through_a_pipe(Output(to=lines.append), cut(data, [10_000, 65_535]), SECRET)
    assert "x" * (LONGEST_LINE_BYTES - 2) + "***!" == "".join(lines).replace(" [...]", "")


def test_a_short_tail_shows_no_part_of_a_secret() -> None:
    assert b"**" == through_a_pipe(Output(2), [b"abba"], SECRET).tail()


# --- real daemons ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [{"timestamps": True}, {"prefix": "q: "}, {"rotate": Rotate(1000)}],
    ids=lambda settings: next(iter(settings)),
)
async def test_what_only_an_owner_can_do_to_output_is_refused_to_a_daemon_without_one(
    tmp_path: Path, settings: dict[str, object]
) -> None:
    (name,) = settings
    output = Output(to=tmp_path / "q.log", **settings)  # type: ignore[arg-type]
    config = shell_daemon("exec sleep 1000", detach=True, output=output)
    lifecycle = DaemonLifecycle(config, registry=MemoryRegistry())
    with pytest.raises(ConfigError, match=f"^output.{name}: .*leave out {name}, or own it"):
        await lifecycle.ensure_running()
    assert not (tmp_path / "q.log").exists()
    async with lifecycle.running() as daemon:
        assert "guarded" == daemon.guarantee


@pytest.mark.fault(35)
async def test_a_flood_into_files_that_rotate_is_conserved(tmp_path: Path) -> None:
    path = tmp_path / "q.log"
    flood = """import sys, time
sys.stdout.write("".join(f"line {n}\\n" for n in range(200_000)) + "done\\n")
time.sleep(1000)
"""
    config = python_daemon(flood, output=Output(to=path, rotate=Rotate(500_000, 100)))
    async with DaemonLifecycle(config).running() as daemon:
        with trio.fail_after(PATIENCE_S):
            while "done" not in daemon.output_tail:  # noqa: ASYNC110
                await trio.sleep(0.01)
    files = [file.decode() for file in files_of(path)]
    assert "".join(f"line {n}\n" for n in range(200_000)) + "done\n" == "".join(files)
    assert all(len(file) <= 500_000 and file.endswith("\n") for file in files)
