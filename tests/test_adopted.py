"""Daemons that somebody else started: found behind their address, used, and stopped when asked."""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import frozen

from tests.support import (
    PATIENCE_S,
    QUICK_PYTHON,
    free_port,
    lives,
    permitted,
    run_app,
    shell_daemon,
    wait_until_gone,
)
from tests.test_pid_reuse import NAMESPACE
from trio_lifecycle import (
    BinaryNotFoundError,
    ConfigError,
    DaemonDiedError,
    DaemonLifecycle,
    DaemonStateUnknownError,
    ForeignDaemonError,
    HealthCheck,
    LifecycleConfig,
    StopLadder,
    attach,
    open_daemon_nursery,
)

# Serves, and has a child that ignores SIGTERM if it is told to; both pids are printed.
SERVER = """
import http.server, os, signal, sys, time

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

port, stubborn = int(sys.argv[1]), len(sys.argv) > 2
child = os.fork()
if child == 0:
    if stubborn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    say("child", os.getpid())
    while True:
        time.sleep(1000)
signal.signal(signal.SIGHUP, lambda *_: say("hung up"))

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass

server = http.server.HTTPServer(("127.0.0.1", port), Handler)
say("listening", os.getpid())
server.serve_forever()
"""


def lifecycle_at(port: int, ladder: StopLadder | None = None) -> DaemonLifecycle:
    """A lifecycle that finds a daemon at this port; what it starts ends at once."""
    config = LifecycleConfig(
        sys.executable,
        name="served",
        args=["-c", ""],
        ready_mode=HealthCheck(f"http://127.0.0.1:{port}/"),
        ready_timeout=5.0,
        stop_ladder=ladder or StopLadder((signal.SIGTERM, 10.0)),
        detach=True,
    )
    return DaemonLifecycle(config)


def lifecycle_that_trusts(port: int, *, detach: bool = False) -> DaemonLifecycle:
    """A lifecycle that takes whoever answers with success; it could start none."""
    mode = HealthCheck(f"http://127.0.0.1:{port}/", expect=lambda answer: answer.status == 200)
    return DaemonLifecycle(LifecycleConfig("no-such-program", ready_mode=mode, detach=detach))


@frozen
class Served:
    """A server that this test's own hand started."""

    port: int
    pid: int
    child: int
    process: "subprocess.Popen[str]"

    def line(self) -> str:
        """The next line that it writes."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


@contextmanager
def serving(*args: str, port: int = 0) -> Iterator[Served]:
    """A server with a child, both gone after the block."""
    port = port or free_port()
    command = [sys.executable, *QUICK_PYTHON, SERVER, str(port), *args]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, process_group=0) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline().split() for _ in range(2)]
        said = {what: int(pid) for what, pid in lines}
        try:
            yield Served(port, said["listening"], said["child"], process)
        finally:
            process.poll()
            for pid in (said["listening"], said["child"]):
                if lives(pid):
                    signal.pidfd_send_signal(pidfd := os.pidfd_open(pid), signal.SIGKILL)
                    os.close(pidfd)


async def test_it_is_found_by_its_listener_and_left_running() -> None:
    with serving() as server:
        async with lifecycle_at(server.port).running() as daemon:
            assert ("adopted", server.pid) == (daemon.origin, daemon.pid)
            assert server.port == daemon.port
            assert "" == daemon.output_tail
            assert [] == [line async for line in daemon.lines()]
        assert lives(server.pid)


async def test_stopping_it_ends_its_whole_tree() -> None:
    with serving() as server:
        daemon = await lifecycle_at(server.port).ensure_running()
        report = await daemon.stop()
        assert ("SIGTERM", None) == (report.rung, report.status)
        assert not lives(server.pid)
        assert not lives(server.child)
        assert await daemon.wait_exit() is None
        await daemon.terminate()
        await daemon.send_signal(signal.SIGHUP)
        assert report == await daemon.stop()


async def test_a_child_of_it_that_ignores_sigterm_is_killed() -> None:
    with serving("stubborn") as server:
        ladder = StopLadder((signal.SIGTERM, 0.2))
        daemon = await lifecycle_at(server.port, ladder).ensure_running()
        assert "SIGKILL" == (await daemon.stop()).rung
        assert not lives(server.child)


async def test_killing_it_ends_its_whole_tree_at_once() -> None:
    with serving("stubborn") as server:
        daemon = await lifecycle_at(server.port).ensure_running()
        assert "SIGKILL" == (await daemon.kill()).rung
        assert not lives(server.pid)
        assert not lives(server.child)


async def test_a_signal_goes_to_its_main_process() -> None:
    with serving() as server:
        daemon = await lifecycle_at(server.port).ensure_running()
        await daemon.send_signal(signal.SIGHUP)
        assert "hung up" == server.line()


@pytest.mark.fault(30)
async def test_its_death_cancels_the_block_that_uses_it() -> None:
    with serving() as server:
        with trio.fail_after(PATIENCE_S), pytest.raises(DaemonDiedError) as caught:
            await use_until_it_dies(server)
        assert caught.value.exit_status is None
        assert "only its parent knows" in str(caught.value)


async def use_until_it_dies(server: Served) -> None:
    async with lifecycle_at(server.port).running():
        os.kill(server.pid, signal.SIGKILL)
        await trio.sleep_forever()


async def test_asked_again_the_same_process_is_found_and_a_new_one_after_its_end() -> None:
    lifecycle = None
    with serving() as first:
        lifecycle = lifecycle_at(first.port)
        assert first.pid == (await lifecycle.ensure_running()).pid
        assert first.pid == (await lifecycle.ensure_running()).pid
        os.kill(first.pid, signal.SIGKILL)
        await wait_until_gone(first.pid)
        with serving(port=first.port) as second:
            daemon = await lifecycle.ensure_running()
            assert second.pid == daemon.pid
            await daemon.kill()


@asynccontextmanager
async def our_own_server(port: int = 0) -> AsyncIterator[int]:
    """A server within this very program."""

    async def answer(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    (listener,) = await trio.open_tcp_listeners(port, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, answer, [listener])
        yield port
        nursery.cancel_scope.cancel()


@pytest.mark.fault(65)
async def test_what_this_program_serves_itself_is_used_but_never_signalled() -> None:
    async with our_own_server() as port, lifecycle_that_trusts(port).running() as daemon:
        assert daemon.pid is None
        assert "adopted None" in repr(daemon)
        assert "" == daemon.output_tail
        assert [] == [line async for line in daemon.lines()]
        for act in (daemon.stop, daemon.kill, daemon.terminate):
            with pytest.raises(DaemonStateUnknownError, match="can't be found from here"):
                await act()
        with pytest.raises(DaemonStateUnknownError):
            await daemon.send_signal(signal.SIGTERM)
        with trio.move_on_after(0.01) as scope:
            await daemon.wait_exit()
        assert scope.cancelled_caught


async def test_one_whose_end_can_not_be_seen_is_asked_each_time() -> None:
    async with our_own_server() as port:
        lifecycle = lifecycle_that_trusts(port, detach=True)
        daemon = await lifecycle.ensure_running()
        assert daemon is await lifecycle.ensure_running()
    with pytest.raises(BinaryNotFoundError):
        await lifecycle.ensure_running()


async def test_a_daemon_nursery_asks_one_whose_end_can_not_be_seen_too() -> None:
    async with open_daemon_nursery() as daemons:
        async with our_own_server() as port:
            lifecycle = lifecycle_that_trusts(port)
            daemon = await daemons.ensure_running(lifecycle)
            assert daemon is await daemons.ensure_running(lifecycle)
        with pytest.raises(BinaryNotFoundError):
            await daemons.ensure_running(lifecycle)
        assert [] == list(daemons)


SERVED_BY_THE_FIRST = """
import http.server, threading

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass

async def main(port):
    for expect in (None, lambda answer: True):
        mode = HealthCheck(f"http://127.0.0.1:{port}/", expect=expect)
        config = LifecycleConfig(sys.executable, name="first", ready_mode=mode, detach=True)
        try:
            print((await DaemonLifecycle(config).ensure_running()).pid)
        except ForeignDaemonError as error:
            print(error.owner.partition(" (")[0])

server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
pid = os.fork()
if pid == 0:
    server.socket.close()
    trio.run(main, server.server_port)
    sys.stdout.flush()
    os._exit(0)
threading.Thread(target=server.serve_forever, daemon=True).start()
os.waitpid(pid, 0)
"""


@pytest.mark.fault(65)
@pytest.mark.skipif(not permitted(*NAMESPACE, "true"), reason="no pid namespace may be made")
def test_the_first_process_of_a_container_is_used_only_if_it_is_accepted_and_never_signalled() -> (
    None
):
    assert ["process 1", "None"] == run_app(SERVED_BY_THE_FIRST, within=NAMESPACE)


async def _async_expectation(_: object) -> bool:
    return True


def _failing_expectation(_: object) -> bool:
    raise ValueError("it can't be read")


@pytest.mark.fault(13)
@pytest.mark.parametrize(
    ("expect", "error"),
    [(_async_expectation, ConfigError), (_failing_expectation, ForeignDaemonError)],
)
async def test_an_expectation_that_can_not_be_asked_accepts_nobody(
    expect: Any, error: type[Exception]
) -> None:
    with serving() as server:
        mode = HealthCheck(f"http://127.0.0.1:{server.port}/", expect=expect)
        with pytest.raises(error):
            await DaemonLifecycle(LifecycleConfig(sys.executable, ready_mode=mode)).run()


LEAVES_ANOTHER = "setsid sleep 1000 & echo $! > other; exec sleep 1000"


@pytest.mark.parametrize("by", ["its starter", "another program"])
async def test_a_daemon_that_it_has_left_running_stays_when_it_is_stopped(
    by: str, tmp_path: Path
) -> None:
    lifecycle = DaemonLifecycle(shell_daemon(LEAVES_ANOTHER, detach=True, working_dir=tmp_path))
    daemon = await lifecycle.ensure_running()
    other = tmp_path / "other"
    with trio.fail_after(PATIENCE_S):
        # A file can't be waited for.
        while not other.exists() or not other.read_text():  # noqa: ASYNC110
            await trio.sleep(0.01)
        pid = int(other.read_text())
        while os.getsid(pid) != pid:  # noqa: ASYNC110
            await trio.sleep(0.01)
    try:
        await (daemon if by == "its starter" else await attach(daemon.name)).stop()
        assert lives(pid)
    finally:
        os.kill(pid, signal.SIGKILL)
    await wait_until_gone(pid)
