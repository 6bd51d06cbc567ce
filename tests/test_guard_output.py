"""What daemons write under a guard: whole, in order, and in nobody's way."""

import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from tests import reapers
from tests.guards import guarded, run, start
from tests.reapers import Mark, held, house, reaper_of
from tests.support import PATIENCE_S, QUICK_PYTHON, Heard
from trio_lifecycle._ssh._guard_link import GuardLink

mark = reapers.mark

FLOOD_BYTES = 5_000_000


@pytest.fixture
async def link() -> AsyncIterator[GuardLink]:
    """A guard at work."""
    async with guarded() as link:
        yield link


async def test_output_and_errors_come_in_the_order_in_which_they_were_written(
    link: GuardLink,
) -> None:
    script = "for i in 1 2 3; do echo out $i; echo err $i >&2; done"
    _, output = await run(link, "/bin/sh", "-c", script)
    assert b"out 1\nerr 1\nout 2\nerr 2\nout 3\nerr 3\n" == output


@pytest.mark.fault(35)
async def test_all_that_a_daemon_wrote_has_come_when_its_end_is_told(
    link: GuardLink, tmp_path: Path
) -> None:
    code = (
        f"import os\nleft = {FLOOD_BYTES}\nwhile left: left -= os.write(1, b'x' * min(left, 9999))"
    )
    path = tmp_path / "log"
    ward, _ = await start(link, sys.executable, *QUICK_PYTHON, code, to=path)
    with trio.fail_after(PATIENCE_S):
        await ward.ended.wait()
    assert (0, FLOOD_BYTES) == (ward.status, path.stat().st_size)


async def test_a_child_that_holds_the_output_is_heard_after_the_main_process_has_ended(
    link: GuardLink, tmp_path: Path
) -> None:
    heard = Heard()
    script = "(read line < $0; echo late) & echo early"
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    ward, output = await start(link, "/bin/sh", "-c", script, str(fifo), to=heard)
    await ward.ended.wait()
    assert b"early\n" == output.tail()
    await trio.to_thread.run_sync(fifo.write_text, "go\n")
    await ward.gone.wait()
    assert b"early\nlate\n" == output.tail()


async def test_what_is_written_to_other_descriptors_is_forwarded_with_their_ends(
    link: GuardLink,
) -> None:
    three: list[bytes] = []
    nine: list[bytes] = []
    script = "echo a >&3; exec 3>&-; echo b >&9; echo c"
    forwards = {3: three.append, 9: nine.append}
    ward, output = await start(link, "/bin/sh", "-c", script, forwards=forwards)
    await ward.gone.wait()
    assert ([b"a\n", b""], [b"b\n", b""], b"c\n") == (three, nine, output.tail())


async def test_a_forward_that_raises_costs_nothing_else(
    link: GuardLink, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(chunk: bytes) -> None:
        raise ValueError(chunk)

    ward, output = await start(link, "/bin/sh", "-c", "echo a >&3; echo c", forwards={3: fail})
    await ward.gone.wait()
    assert (b"c\n", None) == (output.tail(), link.lost)
    assert "can't be passed on" in caplog.text


@pytest.mark.fault(35)
async def test_others_are_served_while_a_daemon_floods(link: GuardLink) -> None:
    flood, _ = await start(link, "/usr/bin/yes")
    assert (0, b"hi\n") == await run(link, "/bin/echo", "hi")
    await flood.signal(signal.SIGKILL, tree=True)
    await flood.gone.wait()


STALL = """
from tests.guards import guarded, start
async def main():
    async with guarded(limit_s=60) as link:
        await start(link, "/usr/bin/yes")
        print("reaper", link.outer, link.inner)
        await trio.sleep_forever()
trio.run(main)
"""


def test_a_guard_whose_reader_stalls_keeps_little_and_hears_of_the_end(mark: Mark) -> None:
    with house(STALL, mark) as program, held(reaper_of(program)) as guard:
        program.signal(signal.SIGSTOP)
        before = memory_of(guard.inner)
        reapers.wait_until(lambda: not is_busy(guard.inner))
        assert memory_of(guard.inner) - before < 8_000_000
        program.signal(signal.SIGKILL)
        mark.wait_until_alone()
        guard.wait_gone()


def memory_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def is_busy(pid: int) -> bool:
    """Whether it has used the processor within a while."""

    def used() -> list[str]:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]

    before = used()
    signal.sigtimedwait([], 0.2)
    return used() != before


TIDY = """
import os, signal, sys
def tidy(*_):
    os.write(1, b"x" * 300000)
    with open(os.environ["NOTES"], "a") as file:
        file.write("tidy")
    os._exit(0)
signal.signal(signal.SIGTERM, tidy)
os.write(1, b"ready\\n")
while True:
    signal.pause()
"""

TALK = """
from tests.guards import guarded, start_python
async def main():
    async with guarded() as link:
        heard = Heard()
        await start_python(link, sys.argv[1], to=heard)
        await heard.line("ready")
        print("reaper", link.outer, link.inner)
        await trio.sleep_forever()
trio.run(main)
"""


def test_a_daemon_that_says_much_while_it_tidies_up_is_not_in_its_own_way(mark: Mark) -> None:
    with house(TALK, mark, TIDY) as program, held(reaper_of(program)) as guard:
        program.signal(signal.SIGKILL)
        mark.wait_until_alone()
        guard.wait_gone()
        assert ["tidy"] == mark.noted()
