"""The step before a daemon: what it asks of the system, and in which order."""

import _signal  # type: ignore[import-not-found]
import errno
import marshal
import os
import posix
import resource
import signal
from collections.abc import Sequence
from typing import Any

import pytest

from trio_lifecycle.spawner import _step

# What Python ignores from its own start on.
IGNORED = (signal.SIGPIPE, signal.SIGXFSZ)

Call = tuple[Any, ...]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """What the step asks of the system, which does nothing of it."""
    made: list[Call] = []

    def fake(module: Any, name: str, answer: object = None) -> None:
        def call(*args: object) -> object:
            made.append((name, *args))
            return answer

        monkeypatch.setattr(module, name, call)

    for name in ("umask", "setgroups", "setresgid", "setresuid", "unsetenv", "dup2", "close"):
        fake(posix, name)
    fake(posix, "open", 77)
    fake(posix, "write", 1)
    fake(resource, "prlimit", (10, 100))
    return made


def order(**changes: Any) -> dict[str, Any]:
    """An order of which a test says only what it is about."""
    nothing = dict.fromkeys(("cgroup_procs", "umask", "uid", "gid", "groups"))
    return {**nothing, "limits": {}, "coerced": False, "pid_variable": None, **changes}


def named(calls: Sequence[Call], *names: str) -> list[Call]:
    return [call for call in calls if call[0] in names]


def test_a_hard_limit_is_raised_as_root_and_a_limit_lowered_last(calls: list[Call]) -> None:
    limits = {"nofile": (7, 20, 200), "as": (9, 5, 5)}
    stages = list(_step.prepare(order(limits=limits, uid=3, gid=4, groups=[4, 5])))
    assert [
        ("prlimit", 0, 7),
        ("prlimit", 0, 7, (10, 200)),
        ("prlimit", 0, 9),
        ("setgroups", [4, 5]),
        ("setresgid", 4, 4, 4),
        ("setresuid", 3, 3, 3),
        ("prlimit", 0, 7, (20, 200)),
        ("prlimit", 0, 9, (5, 5)),
    ] == named(calls, "prlimit", "setgroups", "setresgid", "setresuid")
    assert ["limits", "limits", "group", "group", "user", "limits", "limits"] == [
        stage for stage, _ in stages
    ]


def test_nothing_is_touched_that_was_not_ordered(calls: list[Call]) -> None:
    assert [] == list(_step.prepare(order()))
    assert [("open", "/dev/null", os.O_RDWR), ("dup2", 77, 0), ("close", 77)] == calls


def test_the_control_group_comes_before_all_else(calls: list[Call]) -> None:
    wanted = order(cgroup_procs="/x/cgroup.procs", umask=0o077, coerced=True)
    assert [("cgroup", "/x/cgroup.procs")] == list(_step.prepare(wanted))
    assert [("write", 77, b"0"), ("umask", 0o077), ("unsetenv", "LC_CTYPE")] == named(
        calls, "write", "umask", "unsetenv"
    )


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (OSError(errno.ENOEXEC, ""), ("exec", errno.ENOEXEC, "/bin/queen")),
        (MemoryError(), ("exec", errno.ENOMEM, "")),
    ],
    ids=["refused", "no memory"],
)
def test_it_says_that_it_goes_and_takes_it_back_when_the_program_can_not_be_run(
    calls: list[Call], monkeypatch: pytest.MonkeyPatch, failure: Exception, said: Call
) -> None:
    class EndedError(BaseException):
        pass

    def fail(*args: object) -> None:
        raise failure

    def end(status: int) -> None:
        raise EndedError(status)

    with monkeypatch.context() as patches:
        patches.setattr(_signal, "signal", lambda *args: calls.append(("signal", *args)))
        patches.setattr(posix, "read", lambda *args: marshal.dumps(order()))
        patches.setattr(posix, "dup", lambda fd: 88)
        patches.setattr(posix, "execv", fail)
        patches.setattr(posix, "_exit", end)
        with pytest.raises(EndedError, match="127"):
            _step.main(["/bin/queen", "an argument"])
    written = [(fd, marshal.loads(message)) for _, fd, message in named(calls, "write")]
    assert [(88, None), (88, said)] == written
    default = [("signal", signum, signal.SIG_DFL) for signum in (*IGNORED, signal.SIGINT)]
    assert sorted(default) == sorted(named(calls, "signal"))
