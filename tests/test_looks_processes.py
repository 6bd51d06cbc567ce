"""Processes of another machine: the same answers as on this one, in every shell."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio

from tests import processes, shells
from tests.processes import Start, say, stat_of, zombie
from tests.shells import OpenLine, each_shell, open_session
from tests.stepping import only_root
from tests.support import PATIENCE_S, lives, wait_until_gone
from trio_lifecycle import _procfs
from trio_lifecycle._proc import all_stats, tree_of
from trio_lifecycle._ssh import _remote_processes as remote
from trio_lifecycle._ssh._line import Line
from trio_lifecycle._ssh._remote_processes import Told
from trio_lifecycle._ssh._session import LostError
from trio_lifecycle._stat import Stat

open_line = shells.open_line
start = processes.start
gone = processes.gone

# A leader with a child in its session, a grandchild in one of its own, and one whose parent has
# ended. Their names are made to be mistaken: one is a row of another process as far as 15 bytes go.
FAMILY = """if 1:
    import os, sys, ctypes
    def name(text):
        ctypes.CDLL(None).prctl(15, text, 0, 0, 0)
    def fork(text, change=None):
        pid = os.fork()
        if not pid:
            if change:
                change()
            name(text)
            write.write(b"x")
            sys.stdin.read()
            os._exit(0)
        return pid
    read, write = (os.fdopen(fd, mode, 0) for fd, mode in zip(os.pipe(), ("rb", "wb")))
    child, session = fork(b"\\n1 (x) S 1 1 1 "), fork(b"a) R 1 \\xff\\\\(", os.setsid)
    told, tell = os.pipe()
    middle = os.fork()
    if not middle:
        os.write(tell, str(fork(b"lost \\n")).encode())
        os._exit(0)
    os.waitpid(middle, 0)
    orphan = int(os.read(told, 20))
    for _ in range(3):
        read.read(1)
    print(child, session, orphan, flush=True)
    sys.stdin.read()
"""


def told(stat: Stat) -> Told:
    """A process as another machine is asked for it."""
    return stat.pid, stat.start_time


def wait_for(pid: int, change: int) -> None:
    """Wait until a child of ours has stopped or ended."""
    os.waitid(os.P_PID, pid, change)


def numbers(tree: remote.Tree) -> set[int]:
    return {member.stat.pid for member in tree.members}


@contextmanager
def sleeper(**env: str) -> Iterator[Stat]:
    """A process that is killed after the block."""
    with subprocess.Popen(["sleep", "100"], env={**os.environ, **env}) as process:
        try:
            # Not before it is the program: until then it has our environment.
            while stat_of(process.pid).command != "sleep":
                pass
            yield stat_of(process.pid)
        finally:
            process.kill()


@each_shell
async def test_a_tree_is_found_as_on_this_machine_whatever_its_names_are(
    shell: str, open_line: OpenLine, start: Start
) -> None:
    process = start(FAMILY, start_new_session=True)
    say(process)
    leader = stat_of(process.pid)
    async with open_line(shell) as line:
        tree = await remote.tree_of(line, told(leader))
        here = {stat.pid: stat for stat in tree_of(leader, all_stats())}
        assert here.keys() == numbers(tree)
        assert 4 == len(tree.members)
        assert process.pid == tree.members[0].stat.pid
        for member in tree.members:
            stat = here[member.stat.pid]
            assert stat[:4] == member.stat[:4]
            assert (stat.start_time, stat.threads) == (member.stat.start_time, member.stat.threads)
        names = {member.stat.command for member in tree.members}
        assert {"\\n1 (x) S 1 1 1 ", "lost \\n"} < names
        assert any(name.startswith("a) R 1 ") for name in names)
        assert 0 <= tree.now - leader.start_time < 1_000_000
        assert leader.pid in tree
        assert tree.has(told(leader))
        assert not tree.has((leader.pid, 1))


@each_shell
async def test_a_process_lives_until_it_is_gone_a_zombie_or_another(
    shell: str, open_line: OpenLine, gone: int
) -> None:
    async with open_line(shell) as line:
        with sleeper() as stat:
            assert await remote.lives(line, told(stat))
            assert not await remote.lives(line, (stat.pid, stat.start_time - 1))
            found = await remote.read_stat(line, stat.pid)
            assert found is not None
            assert (stat[:4], told(stat)) == (found[:4], told(found))
        assert not await remote.lives(line, told(stat))
        assert await remote.read_stat(line, gone) is None
        with zombie() as pid:
            assert not await remote.lives(line, told(stat_of(pid)))
            tree = await remote.tree_of(line, told(stat_of(pid)))
            assert [] == tree.members


@each_shell
async def test_what_a_process_runs_is_told_byte_by_byte(
    shell: str, open_line: OpenLine, start: Start
) -> None:
    args = ["", "a b\n\n", "$(x)'\"\\", "\udcff", ""]
    process = start(processes.WAIT, *args)
    say(process)
    stat = stat_of(process.pid)
    async with open_line(shell) as line:
        program = await remote.program_of(line, told(stat))
        assert program is not None
        assert program.exe == _procfs.link(stat.pid, "exe")
        assert args == program.args[-5:]
        assert await remote.program_of(line, (stat.pid, 1)) is None


async def test_the_rest_of_a_tree_is_found_by_who_was_seen_before(
    open_line: OpenLine, start: Start
) -> None:
    process = start(FAMILY, start_new_session=True)
    _, session, _ = say(process)
    leader = stat_of(process.pid)
    async with open_line() as line:
        before = await remote.tree_of(line, told(leader))
        process.kill()
        process.wait()
        assert session not in await remote.tree_of(line, told(leader))
        rest = await remote.tree_of(line, told(leader), before.told)
        assert numbers(before) - {process.pid} == numbers(rest)
        # The number of one that was seen is another's now.
        again = [(pid, 1) for pid in numbers(rest)]
        assert session not in await remote.tree_of(line, told(leader), again)
        left = (await remote.signal_tree(line, told(leader), signal.SIGKILL, rest.told)).left
        for pid in numbers(left):
            await wait_until_gone(pid)
    assert not lives(session)


async def test_the_shell_and_its_ancestors_lead_nobody(open_line: OpenLine) -> None:
    async with open_line() as line:
        for pid in (os.getpid(), line.facts.shell_pid, os.getppid()):
            stat = stat_of(pid)
            assert [] == (await remote.tree_of(line, told(stat), [told(stat)])).members
            assert [] == (await remote.signal_tree(line, told(stat), 15)).left.members


# --- signals --------------------------------------------------------------------------------------


@each_shell
@pytest.mark.fault(77)
async def test_a_signal_goes_to_exactly_this_process(shell: str, open_line: OpenLine) -> None:
    async with open_line(shell) as line:
        with sleeper() as stat:
            assert await remote.signal_one(line, (stat.pid, stat.start_time + 1), signal.SIGKILL)
            await remote.signal_tree(line, (stat.pid, stat.start_time + 1), signal.SIGKILL)
            assert await remote.lives(line, told(stat))
            assert await remote.signal_one(line, told(stat), signal.SIGSTOP)
            wait_for(stat.pid, os.WSTOPPED)
            assert await remote.signal_one(line, told(stat), signal.SIGKILL)
            wait_for(stat.pid, os.WEXITED | os.WNOWAIT)
            assert await remote.signal_one(line, told(stat), signal.SIGKILL)


@each_shell
async def test_a_real_time_signal_is_sent_as_well(shell: str, open_line: OpenLine) -> None:
    async with open_line(shell) as line:
        with sleeper() as stat:
            assert await remote.signal_one(line, told(stat), signal.SIGRTMIN + 3)
            wait_for(stat.pid, os.WEXITED | os.WNOWAIT)


@each_shell
async def test_a_signal_to_a_tree_reaches_all_of_it(
    shell: str, open_line: OpenLine, start: Start
) -> None:
    process = start(FAMILY, start_new_session=True)
    pids = {process.pid, *say(process)}
    leader = stat_of(process.pid)
    seen = [told(stat_of(pid)) for pid in pids]
    async with open_line(shell) as line:
        stopped = await remote.signal_tree(line, told(leader), signal.SIGSTOP)
        assert ([], pids) == (stopped.refused, numbers(stopped.left))
        killed = await remote.signal_tree(line, told(leader), signal.SIGKILL, seen)
        assert [] == killed.refused
        with trio.fail_after(PATIENCE_S):
            while killed.left.members:
                killed = await remote.signal_tree(line, told(leader), signal.SIGKILL, seen)


@pytest.mark.parametrize("pid", [-1, 0, 1])
async def test_numbers_that_mean_many_or_init_are_never_asked_for(
    pid: int, open_line: OpenLine
) -> None:
    async with open_line() as line:
        for ask in (remote.lives, remote.tree_of, remote.program_of):
            with pytest.raises(ValueError, match=f"process {pid} is nobody's daemon"):
                await ask(line, (pid, 1))
        # Nor does the shell believe it.
        assert b"refused" == (await line.run("tl_signal", "KILL", pid, 1)).output
        assert b"refused" == (await line.run("tl_signal", "KILL", "", 1)).output


async def test_a_shell_does_not_signal_itself(open_line: OpenLine) -> None:
    async with open_line() as line:
        itself = stat_of(line.facts.shell_pid)
        assert not await remote.signal_one(line, told(itself), signal.SIGKILL)


@only_root
@pytest.mark.needs("setpriv")
async def test_a_process_of_another_user_refuses(open_line: OpenLine) -> None:
    with sleeper() as stat:
        as_nobody = ("setpriv", "--reuid=65534", "--clear-groups", "sh", "-s")
        async with open_session(*as_nobody) as session:
            line = await Line.open(session)
            assert not await remote.signal_one(line, told(stat), signal.SIGKILL)
            signalled = await remote.signal_tree(line, told(stat), signal.SIGKILL)
            assert ([stat.pid], {stat.pid}) == (signalled.refused, numbers(signalled.left))


# --- strays, and what can't be told ---------------------------------------------------------------


@each_shell
async def test_who_bears_the_mark_of_an_instance_is_found(shell: str, open_line: OpenLine) -> None:
    instance_id = "0123456789abcdef" * 2
    mark = {"TRIO_LIFECYCLE_INSTANCE": instance_id}
    others = {
        "A_TRIO_LIFECYCLE_INSTANCE": instance_id,
        "TRIO_LIFECYCLE_INSTANCE": instance_id + "0",
    }
    async with open_line(shell) as line:
        with sleeper(**mark, B="\n") as stat, sleeper(**others):
            assert [told(stat)] == await remote.strays(line, instance_id)
        assert [] == await remote.strays(line, instance_id)


@each_shell
async def test_a_machine_with_no_descriptor_left_takes_nobody_for_dead(
    shell: str, open_line: OpenLine
) -> None:
    async with open_line(shell) as line:
        with sleeper() as stat:
            await line.run("ulimit", "-n", 4)
            for ask in (remote.lives, remote.tree_of, remote.program_of):
                with pytest.raises(LostError):
                    await ask(line, told(stat))
            with pytest.raises(LostError):
                await remote.signal_one(line, told(stat), signal.SIGKILL)
            with pytest.raises(LostError):
                await remote.signal_tree(line, told(stat), signal.SIGKILL)
            assert lives(stat.pid)
