"""The step before a daemon: what the daemon then has, and what is said when it can't have it."""

import errno
import fcntl
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.stepping import end_of, look, refused, start, unknown
from tests.support import request
from trio_lifecycle._posix_spawn import spawn
from trio_lifecycle.spawner._stepping import StepError, Stepping, explain

SECRET = "hunter2-and-more"

# --- when there is a detour -----------------------------------------------------------------------


def test_there_is_no_detour_when_nothing_is_asked_for() -> None:
    assert None is Stepping.for_request(request("/bin/true"))


def test_there_is_no_detour_for_the_group_that_this_program_has() -> None:
    assert None is Stepping.for_request(request("/bin/true", group=os.getgid()))


async def test_what_was_opened_is_closed_also_when_nothing_is_started_and_more_than_once() -> None:
    stepping = Stepping.for_request(request("/bin/true", umask=0o022))
    assert stepping is not None
    assert stepping.stdin > 2
    assert not os.get_inheritable(stepping.stdin)
    for _ in range(2):
        stepping.let_go()
        stepping.close()


# --- what the daemon has --------------------------------------------------------------------------


async def test_the_daemon_has_its_limits() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = await look(limits={"nofile": (99, 100), "core": (0, 0)})
    assert [99, 100] == found["nofile"]
    assert [0, 0] == found["core"]
    assert hard == resource.getrlimit(resource.RLIMIT_NOFILE)[1]


async def test_a_shell_sees_the_limit_by_its_ulimit() -> None:
    wanted = request("/bin/sh", "-c", "ulimit -Sn; ulimit -Hn", limits={"nofile": (99, 100)})
    assert "99\n100\n" == await start(wanted)


async def test_none_is_unlimited() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    assert hard == resource.RLIM_INFINITY or os.getuid() == 0, (soft, hard)
    found = await look(limits={"core": (0, None)})
    assert [0, resource.RLIM_INFINITY] == found["core"]


async def test_a_daemon_may_have_less_memory_than_the_step_itself_needs() -> None:
    pages = int(await start(request("/bin/sh", "-c", "cut -d ' ' -f 1 /proc/$$/statm", umask=0)))
    shell, step = pages * os.sysconf("SC_PAGE_SIZE"), 3 * 2**20
    wanted = request("/bin/sh", "-c", "ulimit -v", limits={"as": (shell + step,) * 2})
    assert f"{(shell + step) // 1024}\n" == await start(wanted)


async def test_a_program_that_does_not_fit_into_its_memory_is_an_error_or_a_death() -> None:
    wanted = request("/bin/sh", "-c", "echo up", limits={"as": (4096, 4096)})
    with pytest.raises((StepError, AssertionError)) as caught:
        await start(wanted)
    if isinstance(caught.value, StepError):
        # E2BIG: its arguments and environment alone are too much.
        assert "exec" == caught.value.stage
        assert caught.value.errno in (errno.ENOMEM, errno.E2BIG)


async def test_the_daemon_has_its_umask() -> None:
    assert 0o027 == (await look(umask=0o027))["umask"]
    assert 0 == (await look(umask=0))["umask"]


async def test_what_was_not_asked_for_stays_as_it_is() -> None:
    found = await look(limits={"core": (0, 0)})
    umask = os.umask(0)
    os.umask(umask)
    assert umask == found["umask"]
    assert list(resource.getrlimit(resource.RLIMIT_NOFILE)) == found["nofile"]
    assert list(os.getresuid()) == found["uids"]
    assert list(os.getresgid()) == found["gids"]
    assert sorted(os.getgroups()) == found["groups"]


async def test_the_daemon_is_the_process_that_was_spawned_and_leads_its_session() -> None:
    assert 1 == len(set((await look(umask=0))["ids"]))


async def test_the_daemon_has_its_streams_and_no_other_descriptor() -> None:
    found = await look(umask=0)
    assert [0, 1, 2] == found["fds"]
    assert "/dev/null" == found["stdin"]


async def test_no_signal_is_ignored_or_blocked_in_the_daemon() -> None:
    wanted = request("/bin/grep", "-E", "^Sig(Ign|Blk)", "/proc/self/status", umask=0)
    lines = dict(line.split(":\t") for line in (await start(wanted)).splitlines())
    # 32 and 33 are the C library's own.
    valid = sum(1 << (signum - 1) for signum in signal.valid_signals())
    masks = {key: int(mask, 16) & valid for key, mask in lines.items()}
    assert {"SigBlk": 0, "SigIgn": 0} == masks


@pytest.mark.fault(6)
async def test_arguments_arrive_byte_by_byte() -> None:
    args = ["", "a b", "ä", "\udcff", "x" * 100_000]
    wanted = request("/usr/bin/printf", "%s\n", *args, umask=0)
    expected = "".join(f"{arg}\n" for arg in args)
    assert expected == await start(wanted, env={"LC_ALL": "C"})


@pytest.mark.parametrize(
    "env", [{}, {"LC_CTYPE": "C.UTF-8"}, {"LANG": "C"}, {"LC_ALL": "C", "A": "\udcff="}], ids=repr
)
async def test_the_environment_of_the_daemon_is_the_one_that_was_given(env: dict[str, str]) -> None:
    text = await start(request("/usr/bin/env", umask=0, env=dict.fromkeys(os.environ) | env))
    assert sorted(f"{key}={value}" for key, value in env.items()) == sorted(text.splitlines())


async def test_the_daemon_joins_its_control_group_as_itself(tmp_path: Path) -> None:
    procs = tmp_path / "cgroup.procs"
    procs.touch()
    await start(request("/bin/true"), cgroup_procs=str(procs))
    assert "0" == procs.read_text()


# --- what is said when it can't be ----------------------------------------------------------------


def test_a_program_that_does_not_know_its_interpreter_is_told_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "executable", "")
    assert "sys.executable is empty" in unknown(umask=0).problem


@pytest.mark.fault(2)
async def test_a_program_that_is_missing_is_the_same_error_as_without_a_detour() -> None:
    error = await refused(request("/bin/missing", umask=0))
    assert "/bin/missing: No such file or directory" == error.problem
    assert (errno.ENOENT, False) == (error.errno, error.retryable)


@pytest.mark.fault(2)
async def test_a_file_without_a_format_is_never_tried_through_a_shell(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(f"touch {tmp_path}/was-run\n")
    script.chmod(0o700)
    assert errno.ENOEXEC == (await refused(request(str(script), umask=0))).errno
    assert not (tmp_path / "was-run").exists()


async def test_a_control_group_that_is_missing_is_an_error_that_names_it(tmp_path: Path) -> None:
    missing = str(tmp_path / "cgroup.procs")
    error = await refused(request("/bin/true"), cgroup_procs=missing)
    assert missing in error.problem
    assert errno.ENOENT == error.errno


@pytest.mark.parametrize("script", ["", "exit 3", "kill -9 $$", "head -c 1 >/dev/null"])
async def test_an_interpreter_that_ends_early_is_no_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    broken = tmp_path / "python"
    broken.write_text(f"#!/bin/sh\n{script}\n")
    broken.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(broken))
    error = await refused(request("/bin/true", umask=0))
    assert f"{broken} " in error.problem
    assert "it ended early" in error.problem
    assert None is error.errno


async def test_no_daemon_is_started_when_nobody_waits_for_it_any_more(tmp_path: Path) -> None:
    wanted = request("/bin/touch", str(tmp_path / "was-run"), umask=0)
    stepping = Stepping.for_request(wanted)
    assert stepping is not None
    streams = (os.dup(stepping.stdin), 1, 2)
    stepping.close()
    try:
        pid = spawn(sys.executable, stepping.argv, dict(os.environ), None, streams)
    finally:
        os.close(streams[0])
    assert 127 == end_of(pid)
    assert not (tmp_path / "was-run").exists()


@pytest.mark.parametrize(
    ("given", "stage", "what"),
    [
        ({"limits": {"nofile": (5, None)}}, "limits", "nofile"),
        ({"user": "sys"}, "group", ""),
        ({"user": "sys"}, "user", ""),
        ({"group": "sys"}, "group", ""),
        ({"umask": 0}, "exec", "/bin/queen"),
        ({"umask": 0}, "step", ""),
        ({}, "cgroup", "/sys/fs/cgroup/x/cgroup.procs"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("number", [errno.EPERM, errno.EAGAIN, errno.ENOMEM])
def test_no_error_holds_an_argument_or_a_variable(
    given: dict[str, Any], stage: str, what: str, number: int
) -> None:
    wanted = request("/bin/queen", SECRET, env={"TOKEN": SECRET}, **given)
    error = explain(StepError(stage, number, what), wanted)
    assert os.strerror(number) in str(error)
    assert SECRET not in f"{error} {error!r} {error.args}"
    assert (number, number != errno.EPERM) == (error.errno, error.retryable)


def test_a_socket_that_can_not_be_had_is_a_retryable_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*args: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(fcntl, "fcntl", full)
    error = unknown(umask=0)
    assert (errno.EMFILE, True) == (error.errno, error.retryable)
