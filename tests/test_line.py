"""The line: one kept shell on another machine, whose answers are never mistaken."""

import os
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import shells
from tests.shells import OpenLine, each_shell, open_session
from tests.support import PATIENCE_S
from trio_lifecycle._machine import this_boot, this_namespace
from trio_lifecycle._ssh._host_facts import parse_facts, split
from trio_lifecycle._ssh._line import Line
from trio_lifecycle._ssh._session import LostError, Session

open_line = shells.open_line

SPECIAL = ["", " ", "\n", "'", '"', "\\", "$(touch MARK)", "`touch MARK`", "$HOME", "-n", "*", ";"]


async def say(line: Line, *args: str) -> list[str]:
    """Let the shell repeat strings."""
    return split((await line.run("tl_say", *args)).output)


# --- facts ----------------------------------------------------------------------------------------


@each_shell
async def test_every_shell_tells_the_facts_of_its_machine(shell: str, open_line: OpenLine) -> None:
    async with open_line(shell, HOME="/ho me", XDG_STATE_HOME="", TMPDIR="/t\nmp") as line:
        facts = line.facts
        assert (this_boot(), this_namespace()) == (facts.boot_id, facts.pid_namespace)
        assert (os.uname().nodename, os.geteuid()) == (facts.host, facts.uid)
        assert ("/ho me", "/t\nmp") == (facts.home, facts.temporary_dir)
        assert "/ho me/.local/state/trio-lifecycle" == facts.state_dir
        assert os.sysconf("SC_CLK_TCK") == facts.ticks_per_s
        assert str(Path.cwd()) == facts.login_dir
        assert facts.python3 is None or os.access(facts.python3, os.X_OK)
        assert facts.has_setsid


async def test_a_relative_home_is_none_and_state_may_be_elsewhere(open_line: OpenLine) -> None:
    async with open_line(HOME="here", XDG_STATE_HOME="there") as line:
        assert ("", "") == (line.facts.home, line.facts.state_dir)
    async with open_line(XDG_STATE_HOME="/state", TMPDIR="t") as line:
        assert "/state/trio-lifecycle" == line.facts.state_dir
        assert "/tmp" == line.facts.temporary_dir


async def test_a_python_that_is_too_old_is_none(open_line: OpenLine, tmp_path: Path) -> None:
    tmp_path.joinpath("python3").write_text("#!/bin/sh\necho 2.7\n")
    tmp_path.joinpath("python3").chmod(0o755)
    async with open_line(PATH=f"{tmp_path}:{os.environ['PATH']}") as line:
        assert line.facts.python3 != str(tmp_path / "python3")


def test_facts_that_are_cut_short_are_refused() -> None:
    with pytest.raises(ValueError, match="1 facts"):
        parse_facts(b"boot\0")
    with pytest.raises(ValueError, match="without its end"):
        parse_facts(b"boot\0host")


# --- what goes there and comes back ---------------------------------------------------------------


@each_shell
@pytest.mark.fault(71)
async def test_every_byte_but_nul_comes_through_as_it_is(shell: str, open_line: OpenLine) -> None:
    texts = [os.fsdecode(bytes([byte])) for byte in range(1, 256)]
    texts += [f"{text}'{text}\\{text}${text}" for text in texts] + SPECIAL + ["é\u2028\n"]
    async with open_line(shell, LC_ALL="C.UTF-8") as line:
        assert texts == await say(line, *texts)


@given(texts=st.lists(st.binary().map(lambda data: os.fsdecode(data.replace(b"\0", b"")))))
@settings(max_examples=10)
@each_shell
@pytest.mark.fault(71)
def test_nothing_in_an_argument_is_run(shell: str, texts: list[str]) -> None:
    async def main() -> None:
        async with open_session(*shells.COMMANDS[shell]) as session:
            line = await Line.open(session)
            said = [f"{text}$(touch {mark})'`touch {mark}`\n" for text in texts]
            assert said == await say(line, *said)

    mark = Path(f"/tmp/{os.getpid()}.injected")
    trio.run(main)
    assert not mark.exists()


async def test_a_nul_is_refused_before_anything_is_sent(open_line: OpenLine) -> None:
    async with open_line() as line:
        with pytest.raises(ValueError, match="an argument of tl_say holds a NUL"):
            await say(line, "a\0b")
        assert ["after"] == await say(line, "after")


@each_shell
@pytest.mark.fault(76)
async def test_noise_before_the_first_answer_is_skipped(shell: str, tmp_path: Path) -> None:
    noise = shlex.quote("Welcome\n\n0123(\n\\0")
    script = (
        f"printf %s {noise}; umask 777; cd {tmp_path}; exec {shlex.join(shells.COMMANDS[shell])}"
    )
    async with open_session("sh", "-c", script, LANG="tr_TR.UTF-8") as session:
        line = await Line.open(session)
        assert ["a", "b"] == await say(line, "a", "b")
        assert str(tmp_path) == line.facts.login_dir


async def test_the_status_of_a_look_is_given_and_its_input_is_empty(open_line: OpenLine) -> None:
    async with open_line() as line:
        assert (1, b"") == await line.run("false")
        assert (0, b"") == await line.run("cat")
        assert (127, b"") == await line.run("no-such-look")


async def test_an_answer_that_is_too_long_is_none_and_the_next_one_is_right(
    open_line: OpenLine,
) -> None:
    async with open_line() as line:
        with pytest.raises(LostError, match="longer than 1000 bytes"):
            await line.run("seq", 1, 100_000, limit_bytes=1_000)
        with pytest.raises(LostError, match="longer than 999 bytes"):
            await line.run("tl_say", "x" * 999, limit_bytes=999)
        assert b"x" * 999 == (await line.run("printf", "x" * 999, limit_bytes=999)).output


# --- who waits, who is cancelled ------------------------------------------------------------------


async def test_many_ask_at_once_and_each_gets_its_own_answer(open_line: OpenLine) -> None:
    async def ask(number: int) -> None:
        answers[number] = await say(line, str(number))

    answers: dict[int, list[str]] = {}
    async with open_line() as line, trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(ask, number)
    assert {number: [str(number)] for number in range(20)} == answers


async def test_who_is_cancelled_leaves_no_answer_for_the_next(
    open_line: OpenLine, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    async with open_line() as line:
        with trio.move_on_after(0) as scope:
            await say(line, "never sent")
        assert scope.cancelled_caught
        async with trio.open_nursery() as nursery:
            nursery.start_soon(line.run, "cat", str(gate))
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        await trio.to_thread.run_sync(gate.write_text, "late")
        assert ["mine"] == await say(line, "mine")


# --- how it is lost -------------------------------------------------------------------------------


async def test_a_look_that_hangs_loses_the_line_for_all_who_wait(
    open_line: OpenLine, tmp_path: Path
) -> None:
    async def wait_in_vain() -> None:
        with pytest.raises(LostError, match="has hung"):
            await say(line, "x")
        failed.append(True)

    failed: list[bool] = []
    os.mkfifo(tmp_path / "nobody")
    async with open_line() as line:
        async with trio.open_nursery() as nursery:
            hung = line.run("cat", str(tmp_path / "nobody"), patience_s=0.1)
            nursery.start_soon(wait_in_vain)
            with pytest.raises(LostError, match="a look at it has hung"):
                await hung
        assert [True] == failed
        assert line.lost is not None
    # What hangs there goes when the file system answers.
    os.close(os.open(tmp_path / "nobody", os.O_WRONLY))


async def test_a_shell_that_ends_loses_the_line_with_its_last_words(open_line: OpenLine) -> None:
    async with open_line() as line:
        with pytest.raises(LostError, match="its shell has ended: bye"):
            await line.run("eval", "echo bye >&2; exec >&-; exec 2>&-; sleep 0.1; exit 3")
        with pytest.raises(LostError, match="its shell has ended"):
            await say(line, "x")


async def test_what_is_no_shell_is_no_line() -> None:
    async with open_session("echo", "This account is currently not available.") as session:
        with pytest.raises(LostError):
            await Line.open(session)
    async with open_session("sh", "-s") as session:
        session.process.kill()
        await session.wait_end()
        with pytest.raises(LostError):
            await Line.open(session)


async def test_a_closed_line_answers_no_more_and_its_shell_ends(open_line: OpenLine) -> None:
    async with open_session("sh", "-s") as session:
        line = await Line.open(session)
        line.close()
        line.close()
        with pytest.raises(LostError, match="it was closed"):
            await say(line, "x")
        with trio.fail_after(PATIENCE_S):
            assert 0 == await session.wait_end()


class Scripted(Session):
    """A session whose other side does what a test wants."""

    def __init__(self, answer: Callable[[bytes], bytes] | None) -> None:
        self._answer = answer
        self._ready = b""
        self.closed = False

    async def send(self, data: bytes) -> None:
        """Take it, or hang."""
        if self._answer is None:
            await trio.sleep_forever()
        else:
            await trio.lowlevel.checkpoint()
            self._ready = self._answer(data)

    async def receive(self) -> bytes:
        """Give one byte after the other."""
        await trio.lowlevel.checkpoint()
        if not self._ready:
            raise LostError("the cable was cut")
        first, self._ready = self._ready[:1], self._ready[1:]
        return first

    async def wait_end(self) -> int | None:
        """Say nothing of it."""
        raise LostError("the cable was cut")

    def complaints(self) -> str:
        """There are none."""
        return ""

    def close(self) -> None:
        """Note it."""
        self.closed = True


def reply(request: bytes, output: bytes) -> bytes:
    """What a shell would write, after some noise."""
    token = request.splitlines()[-1].rpartition(b" ")[0].rpartition(b" ")[2]
    return b"noise\n" + token + b"\n" + token + b"(\n" + output + b"\n" + token + b")0\n"


async def test_an_answer_may_come_byte_by_byte() -> None:
    facts = b"".join(fact + b"\0" for fact in b"b h pid:[7] u 0 /h - /t / /bin - - x 9".split())
    session = Scripted(lambda request: reply(request, facts))
    line = await Line.open(session)
    assert ("b", "h", 7, 100) == (
        *(line.facts.boot_id, line.facts.host),
        *(line.facts.pid_namespace, line.facts.ticks_per_s),
    )


@pytest.mark.parametrize("output", [b"", b"nonsense", b"a\0" * 14])
async def test_facts_that_make_no_sense_lose_the_line(output: bytes) -> None:
    session = Scripted(lambda request: reply(request, output))
    with pytest.raises(LostError, match="its first answer makes no sense"):
        await Line.open(session)
    assert session.closed


async def test_a_connection_that_is_cut_loses_the_line() -> None:
    session = Scripted(lambda request: b"")
    with pytest.raises(LostError, match="the cable was cut"):
        await Line.open(session)
    assert session.closed


async def test_a_connection_that_takes_nothing_loses_the_line(
    autojump_clock: trio.testing.MockClock,
) -> None:
    session = Scripted(None)
    with pytest.raises(LostError, match="it has read nothing for 10 s"):
        await Line.open(session)
    assert session.closed
