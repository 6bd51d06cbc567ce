"""Starting a process: what it gets, what it does not get, and what is said when it can't be."""

import errno
import fcntl
import json
import os
import resource
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.descriptors import FREE, LOOK, files_at, files_of
from tests.support import QUICK_PYTHON
from trio_lifecycle import _posix_spawn
from trio_lifecycle._posix_spawn import spawn
from trio_lifecycle.spawner._kernel import children

# The signals that a program may meet ignored: by nohup, by Python itself, by a careful server.
USUAL = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE)


def start(
    code: str,
    *,
    env: Mapping[str, str] | None = None,
    working_dir: str | None = None,
    input_from: str = os.devnull,
    descriptors: Mapping[int, int] | None = None,
) -> Any:
    """What a few lines of Python print as JSON, started by `spawn` alone."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    stdin = os.open(input_from, os.O_RDONLY | os.O_CLOEXEC)
    argv = ["a name", *QUICK_PYTHON, code]
    try:
        streams = (stdin, write_end, 2)
        pid = spawn(sys.executable, argv, env or {}, working_dir, streams, descriptors)
    except BaseException:
        os.close(read_end)
        raise
    finally:
        os.close(stdin)
        os.close(write_end)
    with os.fdopen(read_end) as output:
        text = output.read()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    return json.loads(text)


def refused(program: str, *args: str, working_dir: str | None = None) -> int:
    """The error number of a start that fails, and that leaves no child."""
    before = children(os.getpid())
    with pytest.raises(OSError, match=r"\[Errno ") as caught:
        spawn(program, [program, *args], {}, working_dir, (0, 1, 2))
    assert before == children(os.getpid())
    assert caught.value.errno is not None
    return caught.value.errno


# --- what it gets ---------------------------------------------------------------------------------


def test_it_leads_a_session_and_a_group_of_its_own() -> None:
    code = "import json, os; print(json.dumps([os.getpid(), os.getsid(0), os.getpgrp()]))"
    assert 1 == len(set(start(code)))


def test_its_streams_are_the_three_that_were_given(tmp_path: Path) -> None:
    (tmp_path / "input").write_text("what is read")
    code = "import json, sys; print(json.dumps(sys.stdin.read()))"
    assert "what is read" == start(code, input_from=str(tmp_path / "input"))


def test_its_environment_is_exactly_the_one_that_was_given() -> None:
    env = {"PLAIN": "value", "EMPTY": "", "EQUALS": "a=b", "UMLAUT": "ä\udcff"}
    code = "import json, os; print(json.dumps(dict(os.environ)))"
    # Python itself sets LC_CTYPE where no locale is set: PEP 538.
    assert env == {key: text for key, text in start(code, env=env).items() if key != "LC_CTYPE"}


def test_its_arguments_are_passed_as_they_are() -> None:
    code = "import json, sys; print(json.dumps(sys.orig_argv))"
    assert ["a name", *QUICK_PYTHON, code] == start(code)


def test_it_runs_in_the_given_directory_and_this_program_stays_where_it_is(tmp_path: Path) -> None:
    before = Path.cwd()
    code = "import json, os; print(json.dumps(os.getcwd()))"
    assert str(tmp_path) == start(code, working_dir=str(tmp_path))
    assert before == Path.cwd()


def test_it_runs_in_the_directory_of_this_program_when_none_is_given() -> None:
    assert str(Path.cwd()) == start("import json, os; print(json.dumps(os.getcwd()))")


# --- what it does not get -------------------------------------------------------------------------

OPEN = """
import json, os
fds = [int(fd) for fd in os.listdir("/dev/fd") if os.path.exists(f"/dev/fd/{fd}")]
print(json.dumps(sorted(fds)))
"""


@pytest.fixture(params=["with closefrom", "without closefrom"])
def c_library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A C library of today, and one from before glibc 2.34, or musl."""
    if request.param == "without closefrom":
        monkeypatch.setattr(_posix_spawn, "_CLOSE_FROM", "there is no such function")


@pytest.mark.fault(11)
@pytest.mark.usefixtures("c_library")
def test_it_inherits_no_descriptor_but_its_streams_when_some_are_open_without_cloexec() -> None:
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(3)]
    # One far above the others, as a server has them.
    opened.append(fcntl.fcntl(opened[0], fcntl.F_DUPFD, 700))
    for fd in opened:
        os.set_inheritable(fd, True)
    try:
        assert [0, 1, 2] == start(OPEN)
    finally:
        for fd in opened:
            os.close(fd)


@pytest.mark.usefixtures("c_library")
def test_it_inherits_what_it_is_given_and_nothing_between() -> None:
    with files_at([FREE[0], FREE[1]]):
        os.set_inheritable(FREE[0], True)
        wanted = {5: FREE[1], FREE[1]: FREE[0]}
        assert files_of(wanted) == {
            int(fd): tuple(file) for fd, file in start(LOOK, descriptors=wanted).items()
        }


@pytest.mark.fault(11)
def test_it_inherits_no_descriptor_above_a_limit_that_was_lowered_later() -> None:
    low = os.open(os.devnull, os.O_RDONLY)
    high = fcntl.fcntl(low, fcntl.F_DUPFD, 700)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (300, hard))
    try:
        assert [0, 1, 2] == start(OPEN)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.close(low)
        os.close(high)


SIGNALS = """
import json
status = dict(line.rstrip().split(":\\t") for line in open("/proc/self/status") if "Sig" in line)
print(json.dumps({name: int(status[name], 16) for name in ("SigBlk", "SigIgn")}))
"""


def mask_of(*signums: int) -> int:
    return sum(1 << (signum - 1) for signum in signums)


@contextmanager
def ignored_and_blocked() -> Iterator[None]:
    """All that a program can do to the signals that its children should obey."""
    former = {signum: signal.signal(signum, signal.SIG_IGN) for signum in USUAL}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [*USUAL, signal.SIGUSR1])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for signum, handler in former.items():
            signal.signal(signum, handler)


@pytest.mark.fault(12)
def test_it_blocks_and_ignores_nothing_when_this_program_does() -> None:
    with ignored_and_blocked():
        found = start(SIGNALS)
    assert 0 == found["SigBlk"]
    # These two are ignored by the interpreter that looks, from its own start on; 32 and 33 are the
    # C library's own.
    own = mask_of(signal.SIGPIPE, signal.SIGXFSZ)
    assert own == found["SigIgn"] & mask_of(*signal.valid_signals())


@pytest.mark.fault(12)
@pytest.mark.parametrize("signum", USUAL)
def test_a_signal_that_this_program_ignores_and_blocks_ends_it(signum: signal.Signals) -> None:
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        with ignored_and_blocked():
            pid = spawn("/bin/sleep", ["sleep", "1000"], {}, None, (null, null, null))
            os.kill(pid, signum)
            assert -signum == os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        os.close(null)


# --- what is said when it can't be started --------------------------------------------------------


@pytest.mark.fault(2)
def test_a_program_that_is_not_there_is_enoent(tmp_path: Path) -> None:
    assert errno.ENOENT == refused(str(tmp_path / "missing"))


@pytest.mark.fault(2)
def test_a_directory_is_eacces(tmp_path: Path) -> None:
    assert errno.EACCES == refused(str(tmp_path))


@pytest.mark.fault(2)
def test_a_file_without_the_right_to_execute_is_eacces(tmp_path: Path) -> None:
    file = tmp_path / "program"
    file.write_text("#!/bin/sh\n")
    file.chmod(0o600)
    assert errno.EACCES == refused(str(file))


@pytest.mark.fault(2)
@pytest.mark.parametrize("content", [b"exit 0\n", b"\x7fELF and then nonsense", b""])
def test_a_file_that_is_no_program_is_enoexec_and_is_given_to_no_shell(
    tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "program"
    file.write_bytes(content)
    file.chmod(0o700)
    assert errno.ENOEXEC == refused(str(file))


@pytest.mark.fault(4)
def test_a_working_directory_that_is_not_there_is_enoent(tmp_path: Path) -> None:
    assert errno.ENOENT == refused("/bin/true", working_dir=str(tmp_path / "missing"))


@pytest.mark.fault(4)
def test_a_working_directory_that_is_a_file_is_enotdir(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert errno.ENOTDIR == refused("/bin/true", working_dir=str(tmp_path / "file"))


@pytest.mark.fault(6)
def test_one_argument_of_128_kib_is_e2big() -> None:
    assert errno.E2BIG == refused("/bin/true", "x" * 131_072)


@pytest.mark.fault(6)
def test_arguments_beyond_the_limit_of_all_together_are_e2big() -> None:
    assert errno.E2BIG == refused("/bin/true", *["x" * 100_000] * 100)


def test_no_descriptor_is_left_open_when_starts_fail() -> None:
    def count() -> int:
        return len(os.listdir("/dev/fd"))  # noqa: PTH208 - a Path would keep it open longer

    refused("/bin/missing")
    before = count()
    for _ in range(50):
        refused("/bin/missing")
    assert before == count()
