"""Strays: found by their marks and a dead owner, and nothing else is ever touched."""

import errno
import os
import signal
import subprocess
import sys
import time

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from tests import marked as marks
from tests.marked import DEAF, Marked, pid_namespace
from tests.processes import ME, WAIT, say, stat_of, zombie
from tests.support import ROOT, lives, wait_until_gone
from trio_lifecycle import _strays
from trio_lifecycle._proc import namespace, read_about
from trio_lifecycle._strays import Owner, Stray, find_strays, kill_strays, owner_mark, parse_mark

instance_id = marks.instance_id
dead_owner = marks.dead_owner
marked = marks.marked


def strays_of(instance_id: str) -> list[Stray]:
    return [stray for stray in find_strays() if stray.instance_id == instance_id]


def pids_of(instance_id: str) -> list[int]:
    return [stray.stat.pid for stray in strays_of(instance_id)]


# --- the owner's mark -----------------------------------------------------------------------------


def test_mark_says_which_process_owns() -> None:
    assert Owner(pid_namespace(), ME, stat_of(ME).start_time) == parse_mark(owner_mark())


def test_mark_of_a_fork_is_another() -> None:
    code = (
        "import os; from trio_lifecycle._strays import owner_mark\n"
        "print(owner_mark(), flush=True)\n"
        "if os.fork(): os.wait()\n"
        "else: print(owner_mark(), flush=True)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    first, second = map(parse_mark, ran.stdout.splitlines())
    assert first is not None
    assert second is not None
    assert first.pid_namespace == second.pid_namespace
    assert first.pid != second.pid


@given(st.builds(Owner, st.integers(0, 2**64), st.integers(1, 4_194_304), st.integers(0, 2**63)))
def test_what_is_written_is_read(owner: Owner) -> None:
    assert owner == parse_mark(str(owner))


GARBAGE = (
    "",
    "x",
    "1-2",
    "1-2-3-4",
    "1-0-3",
    "1--2-3",
    "1-9999999-3",
    " 1-2-3",
    "1-2-٣",
    "1-2-3\n",
)


@pytest.mark.parametrize("text", GARBAGE)
def test_what_is_no_mark_is_not_read(text: str) -> None:
    assert None is parse_mark(text)


def test_nobody_is_an_owner_where_proc_is_another_namespaces(
    monkeypatch: pytest.MonkeyPatch, marked: Marked, instance_id: str
) -> None:
    pid = marked().pid
    assert [pid] == pids_of(instance_id)
    read = read_about
    monkeypatch.setattr(
        _strays, "read_about", lambda who, name: read(1 if who == "self" else who, name)
    )
    assert "" == owner_mark()
    assert [] == find_strays()


# --- who is a stray -------------------------------------------------------------------------------


def test_stray_is_found_with_what_is_known_of_it(
    marked: Marked, instance_id: str, dead_owner: Owner
) -> None:
    pid = marked().pid
    (stray,) = strays_of(instance_id)
    assert stat_of(pid).start_time == stray.stat.start_time
    assert (pid, ME) == (stray.stat.pid, stray.stat.ppid)
    assert (dead_owner, dead_owner.pid, os.getuid()) == (stray.owner, stray.owner_pid, stray.uid)
    assert stray.command.startswith(f"{sys.executable} -I -S")
    assert 0 <= stray.age_s < 60


def test_owner_that_is_a_zombie_is_dead(marked: Marked, instance_id: str) -> None:
    with zombie() as owner_pid:
        owner = Owner(pid_namespace(), owner_pid, stat_of(owner_pid).start_time)
        pid = marked(owner=str(owner)).pid
        assert [pid] == pids_of(instance_id)


def test_owner_whose_number_is_anothers_now_is_dead(marked: Marked, instance_id: str) -> None:
    owner = Owner(pid_namespace(), ME, stat_of(ME).start_time - 1)
    pid = marked(owner=str(owner)).pid
    assert [pid] == pids_of(instance_id)


BYSTANDERS: dict[str, dict[str, str | None]] = {
    "has an owner that lives": {"owner": "LIVING"},
    "is of another pid namespace": {"owner": "ELSEWHERE"},
    "has no owner": {"owner": None},
    "has no instance": {"instance": None},
    "has an instance of another kind": {"instance": "../queen"},
    **{f"has the mark {text!r}": {"owner": text} for text in GARBAGE},
}


@pytest.mark.parametrize("kind", BYSTANDERS)
def test_bystander_is_no_stray(
    kind: str, marked: Marked, instance_id: str, dead_owner: Owner
) -> None:
    elsewhere = Owner(1, dead_owner.pid, dead_owner.start_time)
    meant = {"LIVING": owner_mark(), "ELSEWHERE": str(elsewhere)}
    pid = marked(**{k: meant.get(v, v) if v else v for k, v in BYSTANDERS[kind].items()}).pid
    assert pid not in [stray.stat.pid for stray in find_strays()]


def test_bystander_that_may_not_be_looked_at_is_no_stray(
    marked: Marked, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = marked().pid
    read = read_about
    monkeypatch.setattr(
        _strays, "read_about", lambda who, name: None if who == pid else read(who, name)
    )
    assert pid not in [stray.stat.pid for stray in find_strays()]


def test_owner_that_is_only_hidden_is_not_dead(
    marked: Marked, instance_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As with hidepid (proc(5)), or where no descriptor may be had of it.
    marked(owner=str(Owner(pid_namespace(), ME, 1)))
    monkeypatch.setattr(_strays, "read_stat", lambda _pid: None)
    assert [] == strays_of(instance_id)

    def refuse(_pid: int) -> int:
        raise PermissionError(errno.EPERM, "not here")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    assert [] == strays_of(instance_id)


def test_process_in_another_time_namespace_is_no_stray(
    marked: Marked, instance_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = marked().pid
    real = namespace
    monkeypatch.setattr(
        _strays,
        "namespace",
        lambda who, kind: 7 if (who, kind) == (pid, "time") else real(who, kind),
    )
    assert [] == strays_of(instance_id)


def test_who_looks_and_its_ancestors_are_no_strays(marked: Marked, instance_id: str) -> None:
    look = (
        "import sys; from trio_lifecycle._strays import find_strays\n"
        "print(*(s.stat.pid for s in find_strays() if s.instance_id == sys.argv[1]), flush=True)"
    )
    code = f"""if 1:
        import subprocess, sys
        sibling = subprocess.Popen(["sleep", "600"])
        print(sibling.pid, flush=True)
        look = [{sys.executable!r}, "-c", {look!r}, {instance_id!r}]
        seen = subprocess.run(look, cwd={str(ROOT)!r}, stdout=-1, text=True).stdout
        sibling.kill()
        sibling.wait()
        print(seen, flush=True)
        sys.stdin.read()
    """
    ran = marked("print(1)\n" + code)
    sibling, found = say(ran), say(ran)
    assert sibling == found


def test_parents_are_listed_before_their_children(marked: Marked, instance_id: str) -> None:
    code = """if 1:
        import os, sys
        read, write = os.pipe()
        for depth in range(4):
            if os.fork():
                os.close(write)
                os.read(read, 1)
                if not depth:
                    print(1, flush=True)
                    sys.stdin.read()
                os.wait()
                os._exit(0)
        os.close(read)
        os.write(write, b"1234")
        os.read(0, 1)
    """
    first = marked(code).pid
    found = strays_of(instance_id)
    assert 5 == len(found)
    assert [first, *(stray.stat.pid for stray in found[:-1])] == [
        first,
        *(stray.stat.ppid for stray in found[1:]),
    ]


# --- ending them ----------------------------------------------------------------------------------


async def test_stray_gets_sigterm_also_when_it_was_stopped(
    marked: Marked, instance_id: str
) -> None:
    runs, sleeps = marked(), marked()
    sleeps.send_signal(signal.SIGSTOP)
    assert [] == await kill_strays(strays_of(instance_id))
    assert [-signal.SIGTERM] * 2 == [runs.wait(), sleeps.wait()]


async def test_stray_that_ignores_sigterm_gets_sigkill_after_the_grace(
    marked: Marked, instance_id: str
) -> None:
    deaf = marked(DEAF)
    began = time.monotonic()
    assert [] == await kill_strays(strays_of(instance_id), 0.3)
    assert -signal.SIGKILL == deaf.wait()
    assert time.monotonic() - began >= 0.3


async def test_stray_that_counts_gets_one_sigterm(marked: Marked, instance_id: str) -> None:
    counts = marked(
        "import signal, sys, os\nsignal.signal(15, lambda *_: os.write(1, b'15\\n'))\n" + WAIT
    )
    assert [] == await kill_strays(strays_of(instance_id), 0.4)
    assert [15] == say(counts)
    assert [] == say(counts)


async def test_what_a_stray_starts_when_it_is_asked_to_go_is_ended_too(
    marked: Marked, instance_id: str
) -> None:
    forks = marked(
        "import os, signal, sys\n"
        "def hop(*_):\n"
        "    if os.fork(): os._exit(0)\n"
        "    os.setsid()\n"
        "    signal.signal(15, signal.SIG_IGN)\n"
        "    print(os.getpid(), flush=True)\n"
        "    signal.pause()\n"
        "signal.signal(15, hop)\n" + WAIT
    )
    left = []
    async with trio.open_nursery() as nursery:

        async def kill() -> None:
            left.extend(await kill_strays(strays_of(instance_id), 1))

        nursery.start_soon(kill)
        (hopped,) = await trio.to_thread.run_sync(say, forks)
    assert [] == left
    assert 0 == forks.wait()
    await wait_until_gone(hopped)


async def test_only_what_was_given_and_its_instance_is_ended(
    marked: Marked, instance_id: str
) -> None:
    given_, same = marked(), marked()
    other = marked(instance="f" * 32)
    living = marked(owner=owner_mark())
    (stray,) = [stray for stray in strays_of(instance_id) if stray.stat.pid == given_.pid]
    assert [] == await kill_strays([stray])
    assert [-signal.SIGTERM] * 2 == [given_.wait(), same.wait()]
    assert lives(other.pid)
    assert lives(living.pid)


async def test_stray_that_has_become_another_program_is_left_and_reported(
    marked: Marked, instance_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_strays, "KILL_PATIENCE_S", 0.2)
    code = (
        "import os, sys; print(1, flush=True); sys.stdin.readline()\n"
        f"os.execve(sys.executable, [sys.executable, '-ISc', {WAIT!r}], {{}})"
    )
    changes = marked(code)
    strays = strays_of(instance_id)
    assert changes.stdin is not None
    changes.stdin.write("\n")
    changes.stdin.flush()
    assert [1] == say(changes)
    assert strays == await kill_strays(strays, 0.1)
    assert lives(changes.pid)


async def test_nothing_is_ended_when_there_is_nothing() -> None:
    assert [] == await kill_strays([])


async def test_stray_that_we_may_not_end_is_reported(
    marked: Marked, instance_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> bool:
        raise PermissionError

    marked()
    monkeypatch.setattr(_strays, "KILL_PATIENCE_S", 0.2)
    monkeypatch.setattr(_strays, "signal_process", refuse)
    strays = strays_of(instance_id)
    left = await kill_strays(strays, 0)
    assert [strays[0].identity] == [stray.identity for stray in left]
