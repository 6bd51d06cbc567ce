"""What tests of the step before a daemon need: starts over it, and what a daemon then finds."""

import functools
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, TextIO

import pytest
import trio

from tests.support import PATIENCE_S, QUICK_PYTHON, request
from trio_lifecycle import SpawnError
from trio_lifecycle._posix_spawn import spawn
from trio_lifecycle.abc import SpawnRequest
from trio_lifecycle.spawner import _step
from trio_lifecycle.spawner._stepping import StepError, Stepping, explain

only_root = pytest.mark.skipif(os.getuid() != 0, reason="only root may become another user")

# A user whom every Unix has, and who is never this one.
DAEMON = pwd.getpwnam("daemon")

LOOK = """
import json, os, resource
umask = os.umask(0)
print(json.dumps({
    "umask": umask,
    "nofile": resource.getrlimit(resource.RLIMIT_NOFILE),
    "core": resource.getrlimit(resource.RLIMIT_CORE),
    "uids": os.getresuid(),
    "gids": os.getresgid(),
    "groups": sorted(os.getgroups()),
    "env": dict(os.environ),
    "fds": sorted(fd for fd in map(int, os.listdir("/dev/fd")) if os.path.exists(f"/dev/fd/{fd}")),
    "stdin": os.readlink("/dev/fd/0"),
    "ids": [os.getpid(), os.getsid(0), os.getpgrp()],
}))
"""


async def start(
    wanted: SpawnRequest, *, cgroup_procs: str | None = None, env: Mapping[str, str] | None = None
) -> str:
    """What a program writes that is started by the detour."""
    stepping = Stepping.for_request(wanted, cgroup_procs)
    assert stepping is not None
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    merged = {**(os.environ if env is None else env), **stepping.env, **wanted.env}
    variables = {key: value for key, value in merged.items() if value is not None}
    streams = (stepping.stdin, write_end, write_end)
    with as_text(read_end) as output:
        try:
            pid = spawn(stepping.program, stepping.argv, variables, None, streams)
            stepping.let_go()
            os.close(write_end)
            try:
                with trio.fail_after(PATIENCE_S):
                    await stepping.done()
            except trio.TooSlowError:
                os.kill(pid, signal.SIGKILL)
                raise
            finally:
                text = output.read()
                status = end_of(pid)
        finally:
            stepping.close()
    assert 0 == status, text
    return text


def as_text(fd: int) -> TextIO:
    """What comes out of a pipe, with bytes that are no UTF-8 kept."""
    return os.fdopen(fd, encoding="utf-8", errors="surrogateescape")


def end_of(pid: int) -> int:
    """Wait for a process's end, and give its status."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@functools.cache
def python_for_all() -> str:
    """An interpreter that an ordinary user may run, with the step."""
    code = "import sys; open(sys.argv[1]).close()"
    for python in filter(None, (sys.executable, shutil.which("python3", path="/usr/bin"))):
        try:
            subprocess.run(
                [python, "-I", "-S", "-c", code, _step.__file__],
                user=DAEMON.pw_uid,
                group=DAEMON.pw_gid,
                extra_groups=[],
                check=True,
                capture_output=True,
            )
        except (OSError, subprocess.CalledProcessError):
            continue
        return python
    pytest.skip("an ordinary user may not run an interpreter here, or not read the package")


async def look(*, env: Mapping[str, str] | None = None, **changes: Any) -> dict[str, Any]:
    """What a daemon finds that asked for something."""
    changed = os.getuid() == 0 and "user" in changes
    python = python_for_all() if changed else sys.executable
    wanted = request(python, *QUICK_PYTHON, LOOK, **changes)
    found: dict[str, Any] = json.loads(await start(wanted, env=env))
    return found


async def refused(wanted: SpawnRequest, *, cgroup_procs: str | None = None) -> SpawnError:
    """What is said of a daemon that could not have what it asked for."""
    with pytest.raises(StepError) as caught:
        await start(wanted, cgroup_procs=cgroup_procs)
    return explain(caught.value, wanted)


def unknown(**changes: Any) -> SpawnError:
    """What is said before anything is started."""
    with pytest.raises(SpawnError) as caught:
        Stepping.for_request(request("/bin/true", **changes))
    return caught.value
