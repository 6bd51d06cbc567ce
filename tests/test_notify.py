"""Ready by sd_notify: who is believed, what is passed on, and what it withstands."""

import os
import pickle
import pwd
import resource
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from tests.callbacks import FakeProcess
from tests.notifying import SAY, talking
from tests.support import PATIENCE_S, QUICK_PYTHON, Heard, python_daemon, shell_daemon
from trio_lifecycle import (
    FREE_PORT,
    ConfigError,
    DaemonLifecycle,
    Event,
    LocalSpawner,
    Notify,
    Output,
    ReadyError,
    ReadyTimeoutError,
    Said,
)
from trio_lifecycle._guarantee import Guarantee
from trio_lifecycle._listen_socket import LONGEST_SOCKET_PATH_BYTES
from trio_lifecycle.abc import Progress, Report, Start
from trio_lifecycle.ready._conversation import LONGEST_MESSAGE_BYTES
from trio_lifecycle.ready._notify_socket import NAME_BYTES

ME = os.getpid()
NOBODY = 65_534

needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can be, or claim to be, others"
)

# --- the mode -------------------------------------------------------------------------------------


def test_it_is_a_value_that_prints_what_was_written(tmp_path: Path) -> None:
    mode = Notify(watchdog=2, path=str(tmp_path))
    assert f"Notify(watchdog=2.0, path={tmp_path!r})" == repr(mode)
    assert mode == pickle.loads(pickle.dumps(mode)) != Notify()
    assert frozenset({"NOTIFY_SOCKET"}) == mode.channels


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("watchdog", 0, "must be more than 0"),
        ("watchdog", "2", "must be a number of seconds"),
        ("path", 5, "must be the path of a directory"),
        ("path", b"/tmp", "must be the path of a directory"),
        ("path", Path("/") / ("x" * 90), "at most 83 bytes are left"),
        ("path", "a\0b", "can't be the path"),
        ("path", "", "can't be the path"),
    ],
)
def test_what_cant_be_meant_is_refused(field: str, value: Any, problem: str) -> None:
    with pytest.raises(ConfigError, match=f"^{field}: .*{problem}"):
        Notify(**{field: value})


async def test_the_daemon_is_told_where_to_send_and_how_often() -> None:
    async with talking(Notify(watchdog=0.25)) as talk:
        assert "250000" == talk.armed.env["WATCHDOG_USEC"]
        assert talk.armed.env["NOTIFY_SOCKET"].startswith("@trio-lifecycle/")
    async with talking() as talk:
        assert ["NOTIFY_SOCKET"] == [*talk.armed.env]
        assert "its notification" == talk.armed.awaited


async def test_the_longest_path_that_is_taken_can_be_bound(tmp_path: Path) -> None:
    directory = tmp_path / (
        "x" * (LONGEST_SOCKET_PATH_BYTES - NAME_BYTES - 2 - len(os.fsencode(tmp_path)))
    )
    directory.mkdir()
    async with talking(Notify(path=directory)) as talk:
        assert LONGEST_SOCKET_PATH_BYTES == len(talk.armed.env["NOTIFY_SOCKET"])
        await talk.assert_still_works()
    assert [] == [*directory.iterdir()]


async def test_a_directory_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    start = Start(name="queen", instance_id="7f", port=None, prober=LocalSpawner().open_prober())
    with pytest.raises(ReadyError, match=r"can't be made in .*/none: No such file"):
        await Notify(path=tmp_path / "none").arm(start)


async def test_elsewhere_than_on_linux_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    start = Start(name="queen", instance_id="7f", port=None, prober=LocalSpawner().open_prober())
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(ReadyError, match="only Linux"):
        await Notify().arm(start)


# --- what is said ---------------------------------------------------------------------------------


async def test_its_word_is_heard_and_what_it_said_is_the_report() -> None:
    async with talking(port=81) as talk:
        talk.send("STATUS=loading")
        talk.send(f"READY=1\nMAINPID={ME}\nSTATUS=up")
        await talk.ready.wait()
        assert Report(None, 81, {"status": "up", "mainpid": ME}) == talk.report
        assert [Progress("status", "loading"), Progress("status", "up")] == talk.told


async def test_a_main_process_of_somebody_else_is_not_believed_and_the_rest_is() -> None:
    async with talking() as talk:
        talk.send("READY=1\nMAINPID=1")
        await talk.ready.wait()
        assert Report() == talk.report
        assert "MAINPID=1 is no process of the daemon (1 refused)" in talk.armed.last_seen


async def test_that_it_is_ready_counts_once() -> None:
    async with talking() as talk:
        for text in ("READY=1\nSTATUS=one", "READY=1\nSTATUS=two", "READY=1"):
            talk.send(text)
        await talk.ready.wait()
        await talk.heard()
        assert {"status": "one"} == (talk.report or Report()).facts
        assert ["one", "two"] == [progress.text for progress in talk.told]


async def test_what_it_says_later_is_passed_on() -> None:
    async with talking() as talk:
        for text in ("READY=1", "RELOADING=1", "READY=1", "STOPPING=1"):
            talk.send(text)
        await talk.heard()
        assert ["reloading", "ready", "stopping"] == [progress.topic for progress in talk.told]
        assert await talk.armed.ask(FakeProcess(ME)) is None


async def test_what_was_sent_before_the_wait_is_not_lost_and_a_last_look_finds_it() -> None:
    start = Start(name="queen", instance_id="7f", port=5, prober=LocalSpawner().open_prober())
    armed = await Notify().arm(start)
    process = FakeProcess(ME)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        address = "\0" + armed.env["NOTIFY_SOCKET"][1:]
        sender.sendto(b"STATUS=a", address)
        assert await armed.ask(process) is None
        assert "its last status was 'a'" in armed.last_seen
        sender.sendto(b"READY=1", address)
        # A wait that is cancelled while it judges a message loses none.
        with trio.move_on_after(0):
            await armed.wait(process)
        report = Report(None, 5, {"status": "a"})
        assert report == await armed.ask(process) == await armed.wait(process)
        await armed.disarm()
        await armed.disarm()
        with pytest.raises(ConnectionRefusedError):
            sender.sendto(b"STOPPING=1", address)
    assert report == await armed.ask(process)
    await armed.follow(process)


# --- the watchdog ---------------------------------------------------------------------------------


async def test_a_missed_watchdog_is_told_and_asked_for(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with talking(Notify(watchdog=2.0)) as talk:
        process = FakeProcess(ME)
        talk.send("READY=1")
        await talk.ready.wait()
        await trio.sleep(1.9)
        assert Report() == await talk.armed.ask(process)
        await trio.sleep(0.2)
        assert [Progress("watchdog", "no sign of life for 2 s")] == talk.told
        assert await talk.armed.ask(process) is None
        talk.send("WATCHDOG=1")
        assert Report() == await talk.armed.ask(process)
        assert Progress("watchdog", "alive again") == talk.told[-1]


async def test_a_word_that_came_while_this_program_was_busy_is_not_late() -> None:
    async with talking(Notify(watchdog=0.05)) as talk:
        talk.send("READY=1")
        await talk.ready.wait()
        talk.send("WATCHDOG=1")
        subprocess.run(["sleep", "0.1"], check=True)  # noqa: ASYNC221 - it is to be busy
        assert Report() == await talk.armed.ask(FakeProcess(ME))
        assert [] == talk.told


# --- attacks --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        (b"READY=1\0x", "it holds a NUL"),
        (b"READY=1\n" + b"x" * (LONGEST_MESSAGE_BYTES - 7), "it is longer than 4096 bytes"),
        (b"READY=1\n" + b"x" * 100_000, "it is longer than 4096 bytes"),
    ],
)
async def test_what_is_no_message_is_refused(message: bytes, problem: str) -> None:
    async with talking() as talk:
        talk.send(message)
        await talk.heard()
        refused = f"the last message was refused: {problem} (1 refused)"
        assert f"it has sent nothing by sd_notify; {refused}" == talk.armed.last_seen
        await talk.assert_still_works()


@pytest.mark.parametrize(
    "message", [b"", b"\0", b"\xff" * 4096, b"=", b"READY", b"\n\n", b"READY=1 "]
)
async def test_a_message_that_says_nothing_changes_nothing(message: bytes) -> None:
    async with talking() as talk:
        talk.send(message)
        await talk.assert_still_works()


async def test_a_process_outside_of_the_tree_is_not_believed() -> None:
    async with talking(process=FakeProcess(1)) as talk:
        talk.send("READY=1\nSTATUS=evil")
        await talk.heard()
        assert f"process {ME} does not belong to the daemon (1 refused)" in talk.armed.last_seen
        assert ([], False) == (talk.told, talk.ready.is_set())


async def test_a_process_whose_tree_cant_be_told_is_not_believed() -> None:
    async with talking(process=FakeProcess(tells=False)) as talk:
        talk.send("READY=1")
        await talk.heard()
        assert not talk.ready.is_set()


async def test_a_process_that_has_ended_is_not_believed() -> None:
    async with talking() as talk:
        code = SAY + "say('READY=1')"
        command = [sys.executable, *QUICK_PYTHON, code]
        subprocess.run(command, env=dict(talk.armed.env), check=True)  # noqa: ASYNC221 - to its end
        await talk.heard()
        assert "had ended before it could be looked at (1 refused)" in talk.armed.last_seen
        await talk.assert_still_works()


@needs_root
@pytest.mark.parametrize(
    ("claimed", "problem"),
    [
        ((1, 0), "process 1 does not belong to the daemon"),
        ((ME, NOBODY), f"process {ME} does not run as user {NOBODY}, who has sent it"),
    ],
    # Of the same name in every process that collects them.
    ids=["a stranger", "another user"],
)
async def test_forged_credentials_are_not_believed(claimed: tuple[int, int], problem: str) -> None:
    async with talking() as talk:
        talk.send("READY=1", claimed)
        await talk.heard()
        assert f"{problem} (1 refused)" in talk.armed.last_seen
        await talk.assert_still_works()


@needs_root
@pytest.mark.parametrize("user", [NOBODY, pwd.getpwuid(NOBODY).pw_name])
async def test_the_user_that_was_asked_for_is_believed(user: str | int) -> None:
    async with talking(user=user) as talk:
        talk.send("READY=1", (ME, NOBODY))
        await talk.heard()
        assert talk.ready.is_set()


async def test_a_user_that_is_not_known_here_is_left_to_the_spawn() -> None:
    async with talking(user="no-such-user") as talk:
        await talk.assert_still_works()


async def test_a_sender_that_cant_be_seen_from_here_is_not_believed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with talking() as talk:
        receive = talk.armed._inbox.receive

        def receive_from_elsewhere() -> Any:
            datagram = receive()
            return datagram and datagram._replace(pid=0)

        monkeypatch.setattr(talk.armed._inbox, "receive", receive_from_elsewhere)
        talk.send("READY=1")
        await talk.heard()
        assert "which process has sent it can't be seen from here" in talk.armed.last_seen


async def test_descriptors_that_come_along_are_closed_at_once() -> None:
    read_end, write_end = os.pipe()
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a Path would keep it open longer
    async with talking() as talk:
        talk.send("BARRIER=1", fds=[write_end] * 253)
        os.close(write_end)
        with trio.fail_after(PATIENCE_S):
            await trio.lowlevel.wait_readable(read_end)
        assert b"" == os.read(read_end, 1)
        talk.send("FDSTORE=1", fds=[read_end] * 3)
        await talk.assert_still_works()
        os.close(read_end)
    assert before - 2 == len(os.listdir("/proc/self/fd"))  # noqa: PTH208


FLOOD = """
for _ in range(int(sys.argv[1])):
    say("READY=1\\nSTATUS=" + 4000 * "x")
time.sleep(1000)
"""
FLOOD_MESSAGES = 4_000


def resident_bytes() -> int:
    """What this process has in memory now; its peak would be that of an earlier test."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.parametrize("is_believed", [True, False])
async def test_a_flood_starves_nobody_and_fills_no_memory(is_believed: bool) -> None:
    process = FakeProcess()
    async with talking(process=process) as talk:
        turns = 0
        command = [sys.executable, *QUICK_PYTHON, SAY + FLOOD, str(FLOOD_MESSAGES)]
        flooder = await trio.lowlevel.open_process(command, env=dict(talk.armed.env))
        process.tree = (flooder.pid,) if is_believed else ()
        try:
            before = resident_bytes()
            with trio.fail_after(PATIENCE_S * 3):
                while len(talk.told) + talk.armed._refused < FLOOD_MESSAGES:
                    turns += 1
                    await trio.lowlevel.checkpoint()
            assert turns >= FLOOD_MESSAGES // 2
            # A third of what was sent; told is the test's own.
            assert is_believed or resident_bytes() - before < 5_000_000
            assert is_believed == talk.ready.is_set()
            began = trio.current_time()
        finally:
            flooder.kill()
            await flooder.wait()  # noqa: ASYNC102 - it was killed
    assert trio.current_time() - began < 2.0  # the goal is 0.2


# --- real daemons ---------------------------------------------------------------------------------


async def test_a_daemon_is_heard_from_its_first_word_to_its_last() -> None:
    # Its end would overtake its last word, were that not seen to be read: the receiver closes what
    # comes with BARRIER=1, as sd_notify_barrier(3) has it.
    code = """
import signal
def stop(*args):
    say("STOPPING=1")
    heard, passed = os.pipe()
    socket.send_fds(sender, [b"BARRIER=1"], [passed])
    os.close(passed)
    os.read(heard, 1)
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
say("EXTEND_TIMEOUT_USEC=5000000")
say("STATUS=loading")
say("READY=1\\nMAINPID=%d" % os.getpid())
say("RELOADING=1")
say("READY=1")
time.sleep(1000)
"""
    events: list[Event] = []
    reloaded = trio.Event()

    def observe(event: Event) -> None:
        events.append(event)
        if isinstance(event, Said) and event.topic == "ready":
            reloaded.set()

    config = python_daemon(SAY + code, FREE_PORT, ready_mode=Notify())
    async with DaemonLifecycle(config, observer=observe).running() as daemon:
        assert {"status": "loading", "mainpid": daemon.pid} == daemon.report
        assert int(daemon.port or 0) > 0
        assert "running" == await daemon.check()
        with trio.fail_after(PATIENCE_S):
            await reloaded.wait()
    said = [(event.topic, event.text) for event in events if isinstance(event, Said)]
    assert [
        *(("extend", "5 s more"), ("status", "loading"), ("reloading", "")),
        *(("ready", "it has reloaded"), ("stopping", "")),
    ] == said


@needs_root
@pytest.mark.needs("systemd-notify")
@pytest.mark.parametrize("in_directory", [False, True], ids=["abstract", "in a directory"])
@pytest.mark.parametrize("guarantee", ["guarded", "scoped"])
async def test_a_child_of_a_daemon_of_another_user_is_believed(
    in_directory: bool, guarantee: Guarantee, tmp_path: Path
) -> None:
    for directory in (tmp_path, *tmp_path.parents):
        if directory.stat().st_uid == os.geteuid() and directory != Path("/"):
            directory.chmod(directory.stat().st_mode | 0o055)
    mode = Notify(path=tmp_path) if in_directory else Notify()
    script = "(systemd-notify --ready; exec sleep 1000) & wait"
    config = shell_daemon(script, ready_mode=mode, user=NOBODY, working_dir="/")
    async with DaemonLifecycle(config, spawner=LocalSpawner(guarantee)).running() as daemon:
        assert "running" == await daemon.check()
    assert [] == os.listdir(tmp_path)  # noqa: PTH208 - nothing is waited for


@needs_root
async def test_a_daemon_that_has_changed_its_user_is_believed() -> None:
    code = SAY + f"os.setuid({NOBODY}); say('READY=1'); time.sleep(1000)"
    async with DaemonLifecycle(python_daemon(code, ready_mode=Notify())).running():
        pass


async def test_one_that_never_says_so_is_late_and_its_last_word_is_quoted() -> None:
    code = SAY + "say('STATUS=still loading'); time.sleep(1000)"
    config = python_daemon(code, ready_mode=Notify(), ready_timeout=0.5)
    with pytest.raises(ReadyTimeoutError, match=r"has not sent READY=1; .* was 'still loading'"):
        async with DaemonLifecycle(config).running():
            raise AssertionError("it is not ready")


async def test_one_that_is_left_running_sends_to_nobody_once_it_is_ready(tmp_path: Path) -> None:
    code = """
say("READY=1")
while True:
    time.sleep(0.001)
    try:
        say("STATUS=alone")
    except ConnectionRefusedError:
        break
while True:
    print("refused", flush=True)
    time.sleep(0.01)
"""
    output, mode = Output(to=tmp_path / "log"), Notify(watchdog=0.01)
    lifecycle = DaemonLifecycle(
        python_daemon(SAY + code, ready_mode=mode, detach=True, output=output)
    )
    daemon = await lifecycle.ensure_running()
    try:
        assert "refused" == await anext(daemon.lines())
        assert "running" == await daemon.check()
        # Longer than the watchdog's time: nobody can hear it any more.
        await trio.sleep(0.02)
        assert daemon is await lifecycle.ensure_running()
    finally:
        await daemon.stop()  # noqa: ASYNC102 - it shields itself


INHERITED = """
import os, time
print("has", [name for name in ("NOTIFY_SOCKET", "WATCHDOG_PID") if name in os.environ])
time.sleep(1000)
"""


@pytest.mark.parametrize(("env", "has"), [({}, []), ({"NOTIFY_SOCKET": "/x"}, ["NOTIFY_SOCKET"])])
async def test_a_daemon_does_not_inherit_the_socket_of_whoever_started_this_program(
    env: dict[str, str], has: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.setenv(name, "7")
    heard = Heard()
    config = python_daemon(INHERITED, env=env, output=Output(to=heard))
    async with DaemonLifecycle(config).running():
        assert str(has) == await heard.line("has")


@pytest.mark.needs("systemd-notify")
async def test_systemds_own_client_is_believed() -> None:
    script = "systemd-notify STATUS=loading && systemd-notify --ready && exec sleep 1000"
    async with DaemonLifecycle(shell_daemon(script, ready_mode=Notify())).running() as daemon:
        assert {"status": "loading"} == daemon.report
