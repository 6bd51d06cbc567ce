"""Families of processes: who belongs to a tree, whatever became of its leader."""

import os
import select
import signal
from collections.abc import Iterator

import pytest

from tests import processes
from tests.processes import ME, Start, process_of, reborn, say, stat_of
from trio_lifecycle import _proc
from trio_lifecycle._proc import all_stats, is_descendant, open_pidfd, signal_process, tree_of
from trio_lifecycle._stat import Stat

start = processes.start
gone = processes.gone

# Starts one process in its group, one in a group of its own, one in a session of its own, and one
# that has lost its parent; says their numbers.
FAMILY = """if 1:
    import os, sys
    def fork(change=None):
        pid = os.fork()
        if not pid:
            if change:
                change()
            write.write(b"x")
            sys.stdin.read()
            os._exit(0)
        return pid
    read, write = (os.fdopen(fd, mode, 0) for fd, mode in zip(os.pipe(), ("rb", "wb")))
    plain, group, session = fork(), fork(os.setpgrp), fork(os.setsid)
    told, tell = os.pipe()
    middle = os.fork()
    if not middle:
        os.write(tell, str(fork()).encode())
        os._exit(0)
    os.waitpid(middle, 0)
    orphan = int(os.read(told, 20))
    for _ in range(4):
        read.read(1)
    print(os.getpid(), plain, group, session, orphan, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def family(start: Start) -> Iterator[list[int]]:
    """A leader, its child, one in its own group, one in its own session, and an orphan."""
    process = start(FAMILY, start_new_session=True)
    pids = say(process)
    stats = [stat_of(pid) for pid in pids]
    try:
        yield pids
    finally:
        # By what was true when they were started: their leader may be gone.
        for stat in stats:
            signal_process(stat, signal.SIGKILL)
        for stat in stats:
            wait_until_gone(stat)


def wait_until_gone(stat: Stat) -> None:
    """Wait for the end of a process that may be somebody else's child."""
    pidfd = open_pidfd(stat)
    if pidfd is not None:
        select.select([pidfd], [], [])
        os.close(pidfd)


def pids_of(stats: list[Stat]) -> list[int]:
    return [stat.pid for stat in stats]


def test_tree_has_the_leader_first_and_all_who_descend_from_it(family: list[int]) -> None:
    found = pids_of(tree_of(stat_of(family[0]), all_stats()))
    assert family[0] == found[0]
    assert sorted(family) == sorted(found)
    assert found == pids_of(tree_of(family[0], all_stats()))


def test_tree_without_its_leader_has_those_who_kept_its_session(family: list[int]) -> None:
    leader, plain, group, session, orphan = family
    stat = stat_of(leader)
    signal_process(stat, signal.SIGKILL)
    wait_until_gone(stat)
    # A new session without the parent in between can't be told from a stranger's any more.
    assert {plain, group, orphan} == set(pids_of(tree_of(stat, all_stats())))
    assert session not in pids_of(tree_of(stat, all_stats()))


@pytest.mark.fault(44)
def test_tree_is_empty_when_the_number_is_anothers_now(family: list[int]) -> None:
    assert [] == tree_of(reborn(stat_of(family[0])), all_stats())


def test_descendants_are_those_in_the_tree(family: list[int]) -> None:
    assert [True] * 5 == [is_descendant(pid, family[0]) for pid in family]
    assert not is_descendant(ME, family[0])
    assert not is_descendant(family[3], family[1])
    assert is_descendant(family[1], ME)


def test_process_that_is_gone_descends_from_nobody(gone: int) -> None:
    assert not is_descendant(gone, ME)


def test_circle_of_parents_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    circle = {7: process_of(7, parent=8), 8: process_of(8, parent=7)}
    monkeypatch.setattr(_proc, "_read_stat", circle.get)
    assert not is_descendant(7, 9)


def tree(leader: Stat | int, *stats: Stat) -> list[int]:
    return pids_of(tree_of(leader, {stat.pid: stat for stat in stats}))


FIRST = process_of(10, group=10, session=10)


def test_tree_of_a_leader_alone() -> None:
    assert [10] == tree(FIRST, FIRST, process_of(1, parent=0), process_of(11))


def test_tree_leaves_zombies_out_but_not_what_they_lead() -> None:
    zombie = process_of(10, group=10, session=10, state="Z")
    assert [11, 12] == tree(
        zombie,
        zombie,
        process_of(11, session=10),
        process_of(12, parent=11),
        process_of(13, 10, state="X"),
    )


def test_tree_is_empty_when_nothing_is_left() -> None:
    assert [] == tree(FIRST, process_of(1, parent=0))


def test_tree_has_each_once_when_parents_form_a_circle() -> None:
    assert [10, 11] == tree(FIRST, process_of(10, parent=11), process_of(11, parent=10))


def test_tree_never_has_this_program() -> None:
    ours = process_of(ME, parent=1, session=10)
    under = process_of(ME + 1, parent=ME, session=ME + 1)
    # What is led by the daemon's leader, who is gone, is found; what we started is not.
    assert [14] == tree(10, ours, under, process_of(14, parent=1, session=10))


def test_tree_of_this_program_its_ancestors_and_process_1_is_empty() -> None:
    family = [
        process_of(1, parent=0),
        process_of(10, parent=1, session=10),
        process_of(ME, parent=10, session=10),
        process_of(13, parent=10),
    ]
    assert [[], [], []] == [tree(pid, *family) for pid in (1, 10, ME)]
