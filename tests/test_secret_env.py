"""Secrets of a daemon's environment: given to the daemon, and shown nowhere."""

import traceback
from pathlib import Path

import pytest
import trio
from attrs import evolve, frozen

from tests.simulated import in_simulated_time
from tests.support import PATIENCE_S, Heard, free_port, python_daemon, shell_daemon
from trio_lifecycle import (
    CALLBACK_URL,
    FREE_PORT,
    AllOf,
    Callback,
    DaemonLifecycle,
    DaemonStateUnknownError,
    DiedBeforeReadyError,
    Event,
    Exec,
    ForeignDaemonError,
    HealthCheck,
    LifecycleConfig,
    LogLine,
    MemoryRegistry,
    Notify,
    Output,
    PreflightError,
    ReadyError,
    ReadyTimeoutError,
    SpawnError,
    Stray,
    UnlessLine,
    open_daemon_nursery,
)
from trio_lifecycle._diary import Diary
from trio_lifecycle._framing import LONGEST_LINE_BYTES
from trio_lifecycle._secrets import Secrets
from trio_lifecycle._states import State
from trio_lifecycle.abc import ArmedReady, Process, ReadyMode, Report, Start
from trio_lifecycle.testing import SimulatedDaemon, SimulatedSpawner

pytestmark = pytest.mark.fault(96)

SECRET = "hunter2-and-more"
SECRET_ENV = {"TOKEN": SECRET}

# In two writes, so that it comes in two chunks.
TELLS = "printf 'my %s' hunter2-; sleep 0.05; echo and-more; echo said >&2; exec sleep 1000"


# --- real daemons ---------------------------------------------------------------------------------


async def test_a_daemon_has_its_secret_and_nobody_sees_it(tmp_path: Path) -> None:
    heard = Heard()
    events: list[Event] = []
    script = f'printf %s "$TOKEN" > {tmp_path}/given; {TELLS}'
    config = shell_daemon(script, secret_env=SECRET_ENV, output=Output(to=heard))
    async with DaemonLifecycle(config, observer=events.append).running() as daemon:
        lines = daemon.lines()
        await heard.line("said")
        tail = daemon.output_tail
    assert SECRET == (tmp_path / "given").read_text()
    assert ["my ***", "said"] == heard.lines
    assert "my ***\nsaid\n" == tail
    assert SECRET not in "".join([line async for line in lines])
    assert SECRET not in repr(events)


async def test_markers_in_a_secret_are_filled_in() -> None:
    heard = Heard()
    secret = {"KEY": f"{SECRET}:{FREE_PORT}", "WHERE": CALLBACK_URL}
    code = "import os; print(os.environ['KEY'].partition(':')[2] + ' ' + os.environ['WHERE'][:7])"
    config = python_daemon(
        f"{code}; raise SystemExit(3)",
        secret_env=secret,
        ready_mode=Callback(),
        output=Output(to=heard),
    )
    with pytest.raises(DiedBeforeReadyError):
        async with DaemonLifecycle(config).running():
            pass
    port, scheme = heard.lines[0].split()
    assert (True, "http://") == (port.isdecimal(), scheme)


async def test_the_error_of_a_daemon_that_dies_does_not_tell_its_secret() -> None:
    config = shell_daemon(
        "echo bad $TOKEN; exit 3",
        secret_env=SECRET_ENV,
        ready_mode=HealthCheck(f"http://127.0.0.1:{FREE_PORT}/"),
    )
    with pytest.raises(DiedBeforeReadyError) as caught:
        async with DaemonLifecycle(config).running():
            pass
    assert "bad ***\n" == caught.value.output_tail


async def test_a_foreign_programs_command_line_is_shown_without_the_secret(tmp_path: Path) -> None:
    port = str(free_port())
    place = tmp_path / SECRET
    place.mkdir()
    server = python_daemon("", ready_mode=HealthCheck(f"http://127.0.0.1:{port}/"))
    args = ["-m", "http.server", port, "--bind", "127.0.0.1", "--directory", str(place)]
    wanted = shell_daemon(
        "exec sleep 1000", secret_env=SECRET_ENV, ready_mode=server.ready_mode, name="ours"
    )
    async with DaemonLifecycle(evolve(server, args=args)).running():
        with pytest.raises(ForeignDaemonError) as caught:
            async with DaemonLifecycle(wanted).running():
                pass
    assert f"--directory {tmp_path}/***" in caught.value.owner
    assert SECRET not in f"{caught.value} {caught.value.args}"


async def test_a_detached_daemons_file_is_its_own_but_what_is_read_from_it_is_blotted_out(
    tmp_path: Path,
) -> None:
    log, registry = tmp_path / "q.log", MemoryRegistry()
    config = shell_daemon(TELLS, secret_env=SECRET_ENV, detach=True, output=Output(to=log))
    starter = await DaemonLifecycle(config, registry=registry).ensure_running()
    try:
        daemon = await DaemonLifecycle(config, registry=registry).ensure_running()
        with trio.fail_after(PATIENCE_S):
            # A file can't be waited for.
            while "said" not in daemon.output_tail:  # noqa: ASYNC110
                await trio.sleep(0.01)
        assert ("adopted", "my ***\nsaid\n") == (daemon.origin, daemon.output_tail)
        assert "my ***\nsaid\n" == starter.output_tail
        assert f"my {SECRET}\nsaid\n" == log.read_text()
        reader = daemon.lines()
        with log.open("a") as file:
            # A line over the bound, cut within the secret.
            file.write("x" * 65_530 + SECRET + "\n")
        assert "x" * 65_530 + " [...]" == await anext(reader)
        assert "***" == await anext(reader)
    finally:
        await starter.kill()  # noqa: ASYNC102  # it is killed, so it ends


def speaks(says: str) -> str:
    """Give a daemon that says something by sd_notify, the secret at its end."""
    return (
        "import os, socket, time; where = os.environ['NOTIFY_SOCKET'].replace('@', chr(0), 1); "
        f"text = '{says}' + os.environ['TOKEN']; "
        "socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(text.encode(), where); "
        "time.sleep(1000)"
    )


# A message shows 200 characters, so that a secret is cut which begins behind so many.
PAD = "x" * 190
WRITES = f'echo "{PAD}$TOKEN"; exec sleep 1000'
FAILS = ["sh", "-c", f'echo "{PAD}$TOKEN"; exit 2']


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize(
    ("mode", "script"),
    [
        (Exec(FAILS, fatal_statuses={2}), "exec sleep 1000"),
        (LogLine("never", fatal="x"), WRITES),
        (UnlessLine(LogLine("never"), "x"), WRITES),
        (AllOf(LogLine("never"), Exec(FAILS, fatal_statuses={2})), WRITES),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_a_secret_is_not_shown_in_part_where_a_message_is_cut(
    mode: ReadyMode, script: str, detach: bool
) -> None:
    config = shell_daemon(script, secret_env=SECRET_ENV, ready_mode=mode, detach=detach)
    lifecycle = DaemonLifecycle(config, registry=MemoryRegistry())
    async with open_daemon_nursery() as daemons:
        with pytest.raises(ReadyError) as caught:
            await (lifecycle.ensure_running() if detach else daemons.ensure_running(lifecycle))
    assert f"{PAD}***" in caught.value.problem
    assert SECRET[:4] not in str(caught.value)


async def test_what_a_daemon_says_of_itself_is_cut_without_secrets() -> None:
    config = python_daemon(
        speaks(f"STATUS={PAD}"), secret_env=SECRET_ENV, ready_mode=Notify(), ready_timeout=0.5
    )
    with pytest.raises(ReadyTimeoutError) as caught:
        async with DaemonLifecycle(config).running():
            pass
    assert f"'{PAD}***'" in caught.value.last_seen


@pytest.mark.parametrize("secret", ["tab\tand-more", "bell\aand-more"])
async def test_a_secret_that_can_not_be_printed_is_not_shown(secret: str) -> None:
    mode = Exec(["sh", "-c", 'echo "it is $TOKEN"; exit 2'], fatal_statuses={2})
    config = shell_daemon("exec sleep 1000", secret_env={"TOKEN": secret}, ready_mode=mode)
    with pytest.raises(ReadyError, match=r"it is \*\*\*\."):
        async with DaemonLifecycle(config).running():
            pass


async def test_a_secret_in_two_parts_of_a_line_is_not_quoted() -> None:
    padding = "x" * (LONGEST_LINE_BYTES - 8)
    code = f"import os, time; print({padding!r} + os.environ['TOKEN'], flush=True); time.sleep(99)"
    config = python_daemon(
        code, secret_env=SECRET_ENV, ready_mode=LogLine("never", fatal="and-more")
    )
    with pytest.raises(ReadyError, match=r"it wrote '\*\*\*', which means"):
        async with DaemonLifecycle(config).running():
            pass


async def test_a_url_that_a_line_tells_is_whole_and_shown_without_the_secret() -> None:
    script = "echo at http://127.0.0.1:80/?token=$TOKEN; exec sleep 1000"
    mode = LogLine(r"at (?P<url>http\S+)")
    config = shell_daemon(script, secret_env=SECRET_ENV, ready_mode=mode)
    async with open_daemon_nursery() as daemons:
        daemon = await daemons.ensure_running(DaemonLifecycle(config))
        assert f"http://127.0.0.1:80/?token={SECRET}" == daemon.url == daemon.report["url"]
        assert repr(daemon).endswith("at http://127.0.0.1:80/?token=***>")
        assert "at http://127.0.0.1:80/?token=***\n" == daemon.output_tail


async def test_the_errors_that_have_led_to_one_are_without_secrets(tmp_path: Path) -> None:
    output = Output(to=tmp_path / SECRET / "q.log")
    config = shell_daemon("exec sleep 1000", secret_env=SECRET_ENV, output=output)
    with pytest.raises(SpawnError) as caught:
        async with DaemonLifecycle(config).running():
            pass
    assert f"{tmp_path}/***/q.log" in str(caught.value.__cause__)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


# --- what ready modes say -------------------------------------------------------------------------


@frozen
class Telling(ReadyMode):
    """A ready mode that tells the secret in all that it says."""

    fails: bool = False

    async def arm(self, start: Start) -> ArmedReady:
        return ArmedTelling(self.fails)

    async def arm_again(self, start: Start) -> ArmedReady:
        return ArmedTelling(self.fails)


class ArmedTelling(ArmedReady):
    def __init__(self, fails: bool) -> None:
        self._fails = fails

    @property
    def last_seen(self) -> str:
        return f"it said {SECRET}"

    async def wait(self, process: Process) -> Report:
        if self._fails:
            raise ReadyError("simulated", f"it said {SECRET}", f"output: {SECRET}")
        await trio.sleep_forever()
        raise AssertionError

    async def ask(self, process: Process) -> Report | None:
        await trio.lowlevel.checkpoint()
        return None


class UpOnce(Telling):
    """It is up when it is started, and never again."""

    async def arm(self, start: Start) -> ArmedReady:
        return ArmedUp(self.fails)


class ArmedUp(ArmedTelling):
    async def wait(self, process: Process) -> Report:
        await trio.lowlevel.checkpoint()
        return Report()


def telling(simulated: SimulatedDaemon, **changes: object) -> LifecycleConfig:
    config = simulated.lifecycle(ready_mode=Telling()).config
    return evolve(config, secret_env=SECRET_ENV, **changes)  # type: ignore[arg-type]


@in_simulated_time
async def test_an_error_of_a_ready_mode_and_its_event_are_without_secrets() -> None:
    events: list[Event] = []
    simulated = SimulatedDaemon()
    config = telling(simulated, ready_mode=Telling(fails=True))
    spawner = SimulatedSpawner(simulated)
    with pytest.raises(ReadyError) as caught:
        async with DaemonLifecycle(config, spawner=spawner, observer=events.append).running():
            pass
    assert ("it said ***", "output: ***") == (caught.value.problem, caught.value.output_tail)
    assert SECRET not in repr(caught.value) + repr(events)


@in_simulated_time
async def test_a_timeout_tells_what_was_seen_without_secrets() -> None:
    simulated = SimulatedDaemon(writes=b"cut: er2-and-more " + SECRET.encode())
    config = telling(simulated)
    with pytest.raises(ReadyTimeoutError) as caught:
        async with DaemonLifecycle(config, spawner=SimulatedSpawner(simulated)).running():
            pass
    assert "it said ***" == caught.value.last_seen
    assert "cut: er2-and-more ***" == caught.value.output_tail


@in_simulated_time
async def test_what_is_said_of_a_daemon_that_is_not_up_is_without_secrets() -> None:
    simulated = SimulatedDaemon()
    spawner, registry = SimulatedSpawner(simulated), MemoryRegistry()
    config = telling(simulated, detach=True, ready_mode=UpOnce())
    daemon = await DaemonLifecycle(config, spawner=spawner, registry=registry).ensure_running()
    again = DaemonLifecycle(config, spawner=spawner, registry=registry)
    with pytest.raises(DaemonStateUnknownError, match=r"but it said \*\*\*"):
        await again.ensure_running()
    await daemon.kill()


@in_simulated_time
async def test_a_secret_in_a_url_is_used_and_not_shown() -> None:
    events: list[Event] = []
    simulated = SimulatedDaemon()
    mode = HealthCheck(f"http://127.0.0.1:{FREE_PORT}/{SECRET}")
    config = telling(simulated, ready_mode=mode)
    spawner = SimulatedSpawner(simulated)
    async with DaemonLifecycle(config, spawner=spawner, observer=events.append).running() as daemon:
        assert str(daemon.url).endswith(SECRET)
        assert repr(daemon).endswith("/***>")
    assert SECRET not in repr(events) + repr(config)


def test_a_stray_is_told_of_without_secrets() -> None:
    events: list[Event] = []
    diary = Diary("q", "1", events.append, State.READY, Secrets([SECRET]))
    diary.note(Stray, pid=1, command=f"q --key {SECRET}")
    assert "q may have started process 1 (q --key ***)" == str(events[0])


# --- callback tokens stay as they were ------------------------------------------------------------


async def test_a_secret_and_a_token_are_both_blotted_out() -> None:
    config = shell_daemon(
        "echo $TOKEN $TRIO_LIFECYCLE_CALLBACK_URL; exit 3",
        secret_env=SECRET_ENV,
        ready_mode=Callback(),
    )
    with pytest.raises(DiedBeforeReadyError) as caught:
        async with DaemonLifecycle(config).running():
            pass
    assert "*** http://" in caught.value.output_tail
    assert caught.value.output_tail.endswith("/***\n")


# --- what others hold -----------------------------------------------------------------------------


@frozen
class Held:
    """A check of something that a stranger has got when the daemon is gone, as he tells in full."""

    simulated: SimulatedDaemon
    wait_for_recovery: float = 0.5
    check_timeout: float = 5.0

    async def __call__(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.simulated.spawned and not self.simulated.alive:
            raise RuntimeError(f"q --key {SECRET} has it")

    async def recovery(self) -> "Held":
        return self


@in_simulated_time
async def test_what_is_said_of_one_that_another_follows_is_without_secrets() -> None:
    events: list[Event] = []
    simulated = SimulatedDaemon()
    spawner, registry, checks = SimulatedSpawner(simulated), MemoryRegistry(), [Held(simulated)]
    config = telling(simulated, detach=True, ready_mode=UpOnce(), on_change="restart")
    await DaemonLifecycle(config, spawner=spawner, registry=registry).ensure_running()
    anew = DaemonLifecycle(
        evolve(config, args=["anew"]),
        spawner=spawner,
        registry=registry,
        observer=events.append,
        preflight=checks,
    )
    with pytest.raises(PreflightError, match=r"q --key \*\*\* has it"):
        await anew.ensure_running()
    assert "not_recovered" in [event.kind for event in events]
    assert SECRET not in repr(events)
