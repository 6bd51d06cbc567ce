"""Secrets of a daemon's environment: given to the daemon, and shown nowhere."""

from pathlib import Path

import pytest
import trio
from attrs import evolve, frozen

from tests.simulated import in_simulated_time
from tests.support import PATIENCE_S, Heard, free_port, python_daemon, shell_daemon
from trio_lifecycle import (
    CALLBACK_URL,
    FREE_PORT,
    Callback,
    DaemonLifecycle,
    DaemonStateUnknownError,
    DiedBeforeReadyError,
    Event,
    ForeignDaemonError,
    HealthCheck,
    LifecycleConfig,
    MemoryRegistry,
    Output,
    ReadyError,
    ReadyTimeoutError,
    Stray,
)
from trio_lifecycle._diary import Diary
from trio_lifecycle._secrets import Secrets
from trio_lifecycle._states import State
from trio_lifecycle.abc import ArmedReady, Process, ReadyMode, Report, Start
from trio_lifecycle.testing import SimulatedDaemon, SimulatedSpawner

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
