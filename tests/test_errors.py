"""The errors: one family, with facts that survive pickling and sentences that lead on."""

import pickle
from collections.abc import Iterator

import pytest
from attrs import define

from trio_lifecycle import _errors, _record_errors, _ssh_errors
from trio_lifecycle._errors import (
    BinaryNotFoundError,
    ConfigError,
    DaemonDiedError,
    DaemonStateUnknownError,
    DiedBeforeReadyError,
    ForeignDaemonError,
    GuaranteeError,
    LifecycleError,
    PreflightError,
    ReadyError,
    ReadyTimeoutError,
    ReaperLostError,
    SpawnError,
    StallTimeoutError,
    StopError,
)
from trio_lifecycle._record_errors import (
    ClaimTimeoutError,
    ConfigChangedError,
    DaemonNotRunningError,
    RegistryError,
)
from trio_lifecycle._ssh_errors import (
    RemoteBinaryNotFoundError,
    SSHAuthError,
    SSHConnectError,
    SSHHostKeyError,
)

TAIL = "first\nboom: no license\n"

ERRORS: list[tuple[LifecycleError, tuple[str, ...]]] = [
    (LifecycleError(), ("",)),
    (ConfigError("args[0]", "must be a string"), ("args[0]: must be a string",)),
    (
        BinaryNotFoundError("redis", ("/a/redis", "/b/redis")),
        ("redis was not found", "/a/redis", "/b/redis", "Install it", "search_path"),
    ),
    (BinaryNotFoundError("redis", ()), ("nowhere: there is no PATH", "Install it")),
    (
        BinaryNotFoundError("redis", ("/a/redis",), ("/a/redis is a directory",)),
        ("redis can't be started", "/a/redis is a directory"),
    ),
    (
        PreflightError("queen", ("no GPU", "no room on /data")),
        ("queen was not started", "\n  no GPU", "\n  no room on /data"),
    ),
    (SpawnError("queen", "/q: Permission denied", 13), ("queen could not be spawned: /q: Perm",)),
    (SpawnError("queen", "no memory", 12, True), ("may succeed later",)),
    (
        ReadyTimeoutError("queen", 30.004, "http://q/ answered 503", TAIL),
        ("queen was not ready after 30.00 s", "answered 503", "raise ready_timeout", "  | boom"),
    ),
    (
        ReadyError("queen", "the socket closed", TAIL),
        ("can't become ready: the socket", "  | boom"),
    ),
    (
        ReadyTimeoutError("queen", 300.0, "it asked for more time", extended=True),
        ("queen was not ready after 300.00 s", "it asked for more time. If", "max_ready_timeout"),
    ),
    (
        StallTimeoutError("queen", 8.0, 5.004, "http://q/ answered 503", TAIL),
        ("not ready after 8.00 s", "no sign of life for 5.00 s; http", "stall_timeout", "  | boom"),
    ),
    (
        DiedBeforeReadyError("queen", 3, 0.25, TAIL),
        ("queen exited with status 3 after 0.25 s", "before it was ready", "  | boom"),
    ),
    (DiedBeforeReadyError("queen", -9, 0.25), ("killed by SIGKILL", "It wrote nothing.")),
    (
        DaemonDiedError("queen", -11, 2.5, TAIL),
        ("queen was killed by SIGSEGV 2.50 s after it was ready", "still needed", "  | boom"),
    ),
    (DaemonDiedError("queen", None, 2.5), ("only its parent knows", "It wrote nothing.")),
    (
        ReaperLostError("queen", None, 2.5, TAIL, "one of its processes was killed"),
        ("queen was ended 2.50 s after it was ready", "one of its processes was killed", "boom"),
    ),
    (ReaperLostError("queen", None, 0.0, "", "it was killed"), ("ended before it was ready",)),
    (
        GuaranteeError("queen", "contained", "no cgroup v2 hierarchy is mounted"),
        ("queen can't be contained here: no cgroup", "guarantee='guarded' for its spawner"),
    ),
    (
        GuaranteeError("queen", "guarded", "there is no /proc"),
        ("queen can't be guarded here", "guarantee='scoped' for its spawner"),
    ),
    (
        ForeignDaemonError("queen", "http://q/", "process 7 (nginx)"),
        ("answered by process 7 (nginx), not by queen", "Stop that program", "FREE_PORT"),
    ),
    (
        DaemonStateUnknownError("queen", "the host is silent"),
        ("the state of queen is unknown: the host is silent",),
    ),
    (
        StopError("queen", 7, "nfs_wait", 15.04),
        ("process 7 of queen outlived SIGKILL", "nfs_wait", "15.0 s", "disk or network"),
    ),
    (
        DaemonNotRunningError("queen", "SQLiteRegistry('/r') has no record of it"),
        ("queen is not running: SQLiteRegistry('/r') has no record of it.",),
    ),
    (
        ConfigChangedError("queen", 7, ("args", "env")),
        ("queen runs as process 7", "with other args, env", "on_change='restart'"),
    ),
    (
        ClaimTimeoutError("queen", 40.004, 7, 0.0),
        ("for 40.00 s", "process 7 is starting it, since 19", "claim_timeout", "is free"),
    ),
    (ClaimTimeoutError("queen", 40.0), ("who is starting it can't be told.",)),
    (
        RegistryError("/r", "it is read-only; make it yours"),
        ("the registry /r can't be used: it is read-only; make it yours.",),
    ),
    (StopError("queen", 7, "", 15.0), ("outlived SIGKILL; gave up",)),
    (
        SSHConnectError("gpu-2", "worker", 2222, "connecting", "refused", "Start sshd."),
        ("worker@gpu-2:2222: connecting failed: refused. Start sshd.",),
    ),
    (
        SSHConnectError("gpu-2", None, None, "connecting", "refused"),
        ("gpu-2: connecting failed: refused.",),
    ),
    (
        SSHAuthError("gpu-2", "worker", 22, "logging in", "no key fits"),
        ("worker@gpu-2: logging in failed: no key fits.",),
    ),
    (SSHHostKeyError("gpu-2", None, 22, "checking", "unknown", "Pin it."), ("unknown. Pin it.",)),
    (
        RemoteBinaryNotFoundError("redis", ("/a/redis",), host="gpu-2"),
        ("On gpu-2: redis was not found", "/a/redis"),
    ),
]

# About a value, a file, a machine, or all daemons.
NOT_ABOUT_ONE = (
    *(LifecycleError, ConfigError, BinaryNotFoundError, RegistryError, RemoteBinaryNotFoundError),
    *(SSHConnectError, SSHAuthError, SSHHostKeyError),
)

each_error = pytest.mark.parametrize("error", [e for e, _ in ERRORS], ids=lambda e: repr(e)[:60])


def classes() -> Iterator[type[LifecycleError]]:
    """Every error of the three files."""
    files = (_errors, _record_errors, _ssh_errors)
    for value in (value for file in files for value in vars(file).values()):
        if isinstance(value, type) and issubclass(value, LifecycleError):
            yield value


def test_every_error_of_the_file_is_tried_here() -> None:
    assert {type(error) for error, _ in ERRORS} == set(classes())


@pytest.mark.parametrize(("error", "parts"), ERRORS, ids=lambda v: type(v).__name__)
def test_an_error_says_what_happened_and_what_to_do(
    error: LifecycleError, parts: tuple[str, ...]
) -> None:
    assert [] == [part for part in parts if part not in str(error)]


@each_error
def test_an_error_survives_pickling_with_its_facts_and_notes(error: LifecycleError) -> None:
    error = pickle.loads(pickle.dumps(error))
    error.add_note("seen in CI")
    again = pickle.loads(pickle.dumps(error))
    assert type(error) is type(again)
    assert (str(error), vars(error), error.args) == (str(again), vars(again), again.args)
    assert ["seen in CI"] == again.__notes__


@each_error
def test_an_error_is_no_timeout_and_no_os_error(error: LifecycleError) -> None:
    assert isinstance(error, LifecycleError)
    assert not isinstance(error, (OSError, TimeoutError))


def test_a_config_error_is_a_value_error() -> None:
    assert issubclass(ConfigError, ValueError)


@pytest.mark.parametrize(
    "error",
    [e for e, _ in ERRORS if type(e) not in NOT_ABOUT_ONE],
    ids=lambda e: type(e).__name__,
)
def test_an_error_about_a_daemon_carries_its_name(error: LifecycleError) -> None:
    assert "queen" == vars(error)["daemon"]


def test_two_errors_with_the_same_facts_are_two_errors() -> None:
    # An ExceptionGroup's split and pytest's traceback both tell errors apart by identity.
    one, two = ConfigError("a", "b"), ConfigError("a", "b")
    assert one != two
    assert 2 == len({one, two})


def test_an_error_shows_the_last_20_lines_of_the_output_and_keeps_the_rest() -> None:
    tail = "".join(f"line {number}\n" for number in range(100))
    error = ReadyError("queen", "x", tail)
    shown = [line for line in str(error).splitlines() if line.startswith("  | ")]
    assert [f"  | line {number}" for number in range(80, 100)] == shown
    assert tail == error.output_tail


def test_an_output_of_blank_lines_counts_as_nothing_written() -> None:
    assert str(ReadyError("queen", "x", " \n\n")).endswith("It wrote nothing.")


def test_an_error_without_a_sentence_of_its_own_gives_its_facts() -> None:
    @define(eq=False, slots=False, str=False)
    class OddError(LifecycleError):
        daemon: str
        code: int

    assert "queen, 7" == str(OddError("queen", 7))
