"""A guard: what it starts, how it says so, and what it refuses."""

import errno
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio
import trio.testing

from tests.guards import guarded, run, start, start_python, until
from tests.reapers import descriptors_of, status_of
from tests.support import PATIENCE_S, QUICK_PYTHON, Heard, lives, wait_until_gone
from trio_lifecycle import SpawnError
from trio_lifecycle._machine import identity_of
from trio_lifecycle._proc import read_stat
from trio_lifecycle._ssh import _guard_program
from trio_lifecycle._ssh._guard_link import GuardLink
from trio_lifecycle._ssh._session import LostError
from trio_lifecycle.spawner._kernel import children


def ignore(chunk: bytes) -> None:
    """Hear nothing of it."""


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may do this")


# No text that UTF-8 knows.
VALUE = os.fsdecode(b"\xfe\n")


@pytest.fixture
async def link() -> AsyncIterator[GuardLink]:
    """A guard at work."""
    async with guarded() as link:
        yield link


async def refusal(link: GuardLink, program: str = "/bin/true", **changes: Any) -> SpawnError:
    """Give what a start is refused for."""
    with pytest.raises(SpawnError) as caught:
        await start(link, program, **changes)
    assert {} == link.wards
    return caught.value


# --- a start --------------------------------------------------------------------------------------


async def test_a_daemon_is_known_by_its_number_start_boot_and_namespace(link: GuardLink) -> None:
    ward, _ = await start(link, "/bin/sleep", "1000")
    stat = read_stat(ward.pid)
    assert stat is not None
    identity = identity_of(ward.pid, stat.start_time)
    assert (ward.boot_id, ward.start_time) == (identity.boot_id, stat.start_time)
    assert ward.pid_namespace == identity.pid_namespace
    assert ward.pid == stat.session == stat.group
    assert ward.seen_alive >= ward.start_time


@pytest.mark.parametrize(("code", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", -9)])
async def test_the_exit_status_is_told_as_subprocess_counts(
    code: str, status: int, link: GuardLink
) -> None:
    assert (status, b"") == await run(link, "/bin/sh", "-c", code)


async def test_arguments_and_variables_arrive_byte_by_byte(link: GuardLink) -> None:
    hostile = ["a b", "'\"", "$(x) `y`", "line\nline", "é", os.fsdecode(b"\xff\xfe"), ""]
    code = "import os, sys; print([os.fsencode(a) for a in sys.argv[1:]], os.environb[b'V'])"
    args = (*QUICK_PYTHON, code, *hostile)
    _, output = await run(link, sys.executable, *args, env={"V": VALUE})
    wanted = f"{[os.fsencode(text) for text in hostile]} {os.fsencode(VALUE)!r}\n"
    assert wanted.encode() == output


async def test_a_daemon_gets_the_logins_variables_with_the_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KEPT", "kept")
    monkeypatch.setenv("REMOVED", "x")
    monkeypatch.delenv("LC_ALL", raising=False)
    monkeypatch.setenv("LC_CTYPE", "C")
    async with guarded() as link:
        show = 'echo "$KEPT-$REMOVED-$SET-$LC_CTYPE-$NUMBER-$$"'
        env = {"REMOVED": None, "SET": "set"}
        ward, output = await start(link, "/bin/sh", "-c", show, env=env, pid_variable="NUMBER")
        await ward.gone.wait()
        assert f"kept--set-C-{ward.pid}-{ward.pid}\n".encode() == output.tail()


async def test_a_daemon_starts_in_the_logins_directory_or_in_the_one_asked_for(
    link: GuardLink, tmp_path: Path
) -> None:
    assert (0, f"{Path.cwd()}\n".encode()) == await run(link, "/bin/pwd", "-P")
    assert (0, f"{tmp_path}\n".encode()) == await run(link, "/bin/pwd", "-P", working_dir=tmp_path)


async def test_a_daemon_has_no_descriptors_but_its_own_and_takes_all_signals(
    link: GuardLink,
) -> None:
    gated, _ = await start(link, "/bin/sleep", "1000", gated=True)
    # Until it says so, it may hold a library that is being loaded.
    heard, code = Heard(), "echo up; kill -STOP $$"
    forwards = {5: ignore, 9: ignore}
    ward, _ = await start(link, "/bin/sh", "-c", code, to=heard, forwards=forwards, umask=0o27)
    await heard.line("up")
    status = status_of(ward.pid)
    # Without those of glibc's own, which its posix_spawn(3) has ignored.
    known = sum(1 << (signum - 1) for signum in signal.valid_signals())
    assert [0, 0] == [int(status[name], 16) & known for name in ("SigBlk", "SigIgn")]
    assert "0027" == status["Umask"]
    held = descriptors_of(ward.pid)
    assert ([0, 1, 2, 5, 9], "/dev/null") == (sorted(held), held[0])
    # With what says how its start went, and the gate.
    assert [0, 1, 2, 3, 4] == sorted(descriptors_of(gated.pid))


async def test_limits_are_set(link: GuardLink) -> None:
    limits = {"nofile": (100, 200), "core": (0, 0)}
    _, output = await run(link, "/bin/sh", "-c", "ulimit -Sn; ulimit -Hn; ulimit -c", limits=limits)
    assert b"100\n200\n0\n" == output


@needs_root
async def test_a_daemon_runs_as_another_user_with_that_users_groups_and_variables(
    link: GuardLink,
) -> None:
    show = 'id -un; id -gn; echo "$USER $LOGNAME"'
    assert (0, b"nobody\nnogroup\nnobody nobody\n") == await run(
        link, "/bin/sh", "-c", show, user="nobody"
    )
    assert (0, b"65534\n4\n") == await run(
        link, "/bin/sh", "-c", "id -u; id -g", user=65534, group=4
    )


async def test_a_user_may_ask_for_himself(link: GuardLink) -> None:
    expected = f"{os.getuid()}\n".encode()
    assert (0, expected) == await run(link, "/usr/bin/id", "-u", user=os.getuid())


async def test_a_large_request_is_served(link: GuardLink) -> None:
    args = ("x" * 100_000,) * 12
    status, output = await run(link, "/bin/sh", "-c", "echo $#", *args)
    assert (0, b"11\n") == (status, output)


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.fault(4)
async def test_a_refusal_says_what_was_refused(link: GuardLink, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = [
        (await refusal(link, working_dir=tmp_path / "none")).problem,
        (await refusal(link, working_dir=tmp_path / "file")).problem,
        (await refusal(link, "/no/program")).problem,
        (await refusal(link, str(tmp_path))).problem,
        (await refusal(link, user="nobody-has-it")).problem,
        (await refusal(link, group="nobody-has-it")).problem,
    ]
    assert [
        f"its working directory {tmp_path}/none does not exist",
        f"its working directory {tmp_path}/file is no directory",
        "/no/program: No such file or directory",
        f"{tmp_path}: Permission denied",
        "there is no user 'nobody-has-it' on that machine",
        "there is no group 'nobody-has-it' on that machine",
    ] == said


async def test_too_large_arguments_are_refused_and_not_worth_another_try(link: GuardLink) -> None:
    error = await refusal(link, env={"V": "x" * 200_000})
    assert (errno.E2BIG, False) == (error.errno, error.retryable)
    assert "E2BIG" in error.problem


async def test_a_nul_that_nobody_has_refused_before_is_refused(link: GuardLink) -> None:
    assert errno.EINVAL == (await refusal(link, env={"V": "a\0b"})).errno


async def test_a_machine_that_is_short_of_descriptors_is_worth_another_try() -> None:
    command = ("sh", "-c", "ulimit -n 30; exec sh -s")
    async with guarded(command=command) as link:
        error = None
        for _ in range(20):
            try:
                await start(link, "/bin/sleep", "1000")
            except SpawnError as caught:
                error = caught
        assert error is not None
        assert (errno.EMFILE, True) == (error.errno, error.retryable)


# --- the gate -------------------------------------------------------------------------------------


async def test_nothing_of_a_program_runs_before_its_gate_opens(link: GuardLink) -> None:
    ward, output = await start(link, "/bin/sh", "-c", "echo $$", gated=True)
    assert (True, b"") == (lives(ward.pid), output.tail())
    await ward.open_gate()
    await ward.open_gate()
    await ward.gone.wait()
    assert f"{ward.pid}\n".encode() == output.tail()


async def test_a_gate_is_refused_when_the_program_is_not_there(link: GuardLink) -> None:
    ward, _ = await start(link, "/no/program", gated=True)
    with pytest.raises(SpawnError, match="No such file"):
        await ward.open_gate()


async def test_a_gate_is_refused_when_its_process_has_ended(link: GuardLink) -> None:
    ward, _ = await start(link, "/bin/true", gated=True)
    os.kill(ward.pid, signal.SIGKILL)
    with pytest.raises(SpawnError, match="has ended at its gate"):
        await ward.open_gate()
    await ward.gone.wait()


async def test_who_is_let_go_at_its_gate_ends(link: GuardLink) -> None:
    ward, output = await start(link, "/bin/echo", "ran", gated=True)
    ward.close()
    await ward.gone.wait()
    assert (b"", False) == (output.tail(), lives(ward.pid))


# --- signals and trees ----------------------------------------------------------------------------

TREE = """
import os, signal, sys, time
def say(word):  # in one piece: two processes write here
    os.write(1, f"{word} {os.getpid()}\\n".encode())
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    say("far")
    time.sleep(1000)
signal.signal(signal.SIGTERM, lambda *_: say("asked"))
say("near")
while True:
    time.sleep(1000)
"""


async def test_a_signal_goes_to_the_whole_tree_or_to_the_main_process(link: GuardLink) -> None:
    heard = Heard()
    ward, _ = await start_python(link, TREE, to=heard)
    far = await heard.pid("far")
    await heard.line("near")
    await ward.signal(signal.SIGTERM, tree=False)
    await heard.line("asked")
    assert [True, True] == [await ward.contains(pid) for pid in (far, ward.pid)]
    assert await ward.contains(os.getpid()) is False
    await ward.signal(signal.SIGTERM, tree=True)
    await wait_until_gone(far)
    assert not ward.ended.is_set()
    await ward.signal(signal.SIGKILL, tree=True)
    await ward.gone.wait()
    assert -9 == ward.status
    await ward.signal(signal.SIGKILL, tree=True)


async def test_a_daemon_has_ended_before_it_is_gone_when_a_child_outlives_it(
    link: GuardLink,
) -> None:
    heard = Heard()
    ward, _ = await start(link, "/bin/sh", "-c", "setsid sleep 1000 & echo child $!", to=heard)
    child = await heard.pid("child")
    await ward.ended.wait()
    assert (0, False) == (ward.status, ward.gone.is_set())
    os.kill(child, signal.SIGKILL)
    await ward.gone.wait()


# --- cancellation and loss ------------------------------------------------------------------------


async def test_a_start_that_is_cancelled_leaves_nothing(link: GuardLink, tmp_path: Path) -> None:
    random = Random(6)
    for _ in range(20):
        with trio.move_on_after(random.uniform(0, 0.012)):
            await start(link, "/bin/sleep", "1000", gated=random.random() < 0.5)
            await trio.sleep_forever()
        assert 0 == len([ward for ward in link.wards.values() if not ward.pid])
        for ward in [*link.wards.values()]:
            ward.abandon()
            await ward.gone.wait()
    await until(lambda: not children(link.inner))


async def test_what_waits_hears_of_it_when_the_guard_is_killed(link: GuardLink) -> None:
    ward, _ = await start(link, "/bin/sleep", "1000", gated=True)
    os.kill(link.inner, signal.SIGSTOP)
    lost: list[str] = []

    async def attempt(act: Callable[[], Awaitable[object]]) -> None:
        try:
            await act()
        except LostError as error:
            lost.append(str(error))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(attempt, ward.open_gate)
        nursery.start_soon(attempt, partial(start, link, "/bin/true"))
        nursery.start_soon(attempt, partial(ward.signal, signal.SIGTERM, tree=True))
        await trio.testing.wait_all_tasks_blocked(0.01)
        os.kill(link.inner, signal.SIGKILL)
    assert ["the guard has ended"] * 3 == lost
    assert ("the guard has ended", False) == (ward.lost, ward.ended.is_set())
    assert await ward.contains(1) is None
    with pytest.raises(LostError):
        await start(link, "/bin/true")


async def test_a_guard_that_is_stopped_is_given_up_after_the_limit() -> None:
    async with guarded(limit_s=0.6) as link:
        os.kill(link.inner, signal.SIGSTOP)
        with trio.fail_after(PATIENCE_S):
            await link.wait_lost()
        assert "the guard said nothing for 0.6 s" == link.lost
        os.kill(link.inner, signal.SIGCONT)


async def test_the_outer_half_ends_all_in_the_place_of_an_inner_one_that_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def hasty(name: str) -> str:
        return source(name).replace("PATIENCE_S = 10.0", "PATIENCE_S = 0.2")

    source = _guard_program._source
    monkeypatch.setattr(_guard_program, "_source", hasty)
    async with guarded(limit_s=0.6) as link:
        ward, _ = await start(link, "/bin/sleep", "1000")
        os.kill(link.inner, signal.SIGSTOP)
        with trio.fail_after(PATIENCE_S):
            await link.wait_lost()
        await wait_until_gone(ward.pid)


async def test_a_login_directory_that_was_removed_keeps_nothing_from_starting(
    tmp_path: Path,
) -> None:
    command = ("sh", "-c", 'mkdir "$0"; cd "$0"; rmdir "$0"; exec sh -s', str(tmp_path / "home"))
    async with guarded(command=command) as link:
        assert (0, b"/\n") == await run(link, "/bin/pwd", "-P")


async def test_a_beat_tells_when_a_daemon_was_seen_alive() -> None:
    async with guarded(limit_s=0.9) as link:
        ward, _ = await start(link, "/bin/sleep", "1000")
        before = ward.seen_alive
        await until(lambda: ward.seen_alive > before)
