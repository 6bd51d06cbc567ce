"""Ready by HTTP: the daemon's own answer counts, and nobody else's."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
import trio

from tests.simulated import in_simulated_time
from tests.support import (
    PATIENCE_S,
    QUICK_PYTHON,
    Heard,
    end,
    free_port,
    lives,
    python_daemon,
    spawn,
    spawn_python,
)
from trio_lifecycle import (
    FREE_PORT,
    DaemonLifecycle,
    DiedBeforeReadyError,
    ForeignDaemonError,
    HealthCheck,
    LocalSpawner,
    Output,
    ReadyTimeoutError,
)
from trio_lifecycle.abc import ArmedReady, Process, Start, Verdict
from trio_lifecycle.testing import SimulatedDaemon, SimulatedSpawner
from trio_lifecycle.testing._spawner import SimulatedProcess

# Answers with the statuses given, the last one for ever; each is said when it is sent.
SERVER = """
import os, signal, socket, sys

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def listen(host, port, shared=False):
    server = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shared)
    server.bind((host, int(port)))
    server.listen(100)
    say("listening", os.getpid())
    return server

def serve(server, statuses):
    while True:
        connection, _ = server.accept()
        if not connection.recv(65536):
            continue
        status = statuses.pop(0) if len(statuses) > 1 else statuses[0]
        connection.sendall(f"HTTP/1.1 {status} X\\r\\ncontent-length: 0\\r\\n\\r\\n".encode())
        connection.close()
        say("sent", status)
"""
SERVES = f"{SERVER}\nserve(listen(*sys.argv[1:3]), sys.argv[3:] or ['200'])"
SERVES_SHARED = f"{SERVER}\nserve(listen(*sys.argv[1:3], shared=True), ['200'])"
WAITS = "import time; time.sleep(1000)"


async def arm(port: int, host: str = "127.0.0.1", **options: Any) -> ArmedReady:
    """A health check of one spawn."""
    start = Start(
        name="daemon", instance_id="instance", port=None, prober=LocalSpawner().open_prober()
    )
    return await HealthCheck(f"http://{host}:{port}/health", **options).arm(start)


@asynccontextmanager
async def spawned(code: str, *args: str) -> AsyncIterator[tuple[Process, Heard]]:
    """A daemon of ours, and what it says; killed at the end of the block."""
    heard = Heard()
    async with trio.open_nursery() as nursery:
        process = await spawn_python(nursery, code, *args, output=Output(to=heard))
        try:
            yield process, heard
        finally:
            with trio.CancelScope(shield=True):
                await end(process)


@contextmanager
def stranger(code: str, *args: str) -> Iterator[int]:
    """A program that nobody here has spawned, listening when the block begins."""
    command = [sys.executable, *QUICK_PYTHON, code, *args]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith(b"listening")
            yield process.pid
            assert process.poll() is None, "the stranger was ended"
        finally:
            process.kill()


async def is_ready(armed: ArmedReady, process: Process) -> bool:
    """Whether it becomes ready in the time that any daemon here needs."""
    with trio.move_on_after(PATIENCE_S):
        await armed.wait(process)
        return True
    return False


# --- what counts as ready -------------------------------------------------------------------------


@pytest.mark.fault(18)
async def test_the_first_success_after_failures_is_enough() -> None:
    port = free_port()
    statuses = ["503", "404", "500", "302", "200", "503"]
    async with spawned(SERVES, "127.0.0.1", str(port), *statuses) as (process, heard):
        armed = await arm(port)
        assert await is_ready(armed, process)
        await heard.line("sent 200")
        assert ["sent " + status for status in statuses[:5]] == heard.lines[1:]
        assert f"http://127.0.0.1:{port}/health answered 200" == armed.last_seen


@pytest.mark.fault(21)
@pytest.mark.parametrize("status", ["302", "401", "404", "503"])
async def test_the_time_out_says_which_answer_came_last(status: str) -> None:
    config = python_daemon(
        SERVES,
        "127.0.0.1",
        FREE_PORT,
        status,
        ready_mode=HealthCheck(f"http://127.0.0.1:{FREE_PORT}/health"),
        ready_timeout=0.5,
    )
    with pytest.raises(ReadyTimeoutError, match=f"/health answered {status}") as caught:
        async with DaemonLifecycle(config).running():
            pass
    assert 0.5 <= caught.value.waited_s < 3


@pytest.mark.fault(25)
async def test_a_probe_that_hangs_ends_at_its_own_limit_and_only_one_is_out() -> None:
    code = f"""{SERVER}
server = listen(*sys.argv[1:])
first, _ = server.accept()
first.recv(65536)
server.setblocking(False)
first.settimeout(10)
assert first.recv(1) == b""  # the probe has given up
try:
    server.accept()
    say("there were two at once")
except BlockingIOError:
    say("there was one")
server.setblocking(True)
serve(server, ["200"])
"""
    port = free_port()
    async with spawned(code, "127.0.0.1", str(port)) as (process, heard):
        await heard.line("listening")
        armed = await arm(port, probe_timeout=0.2)
        assert await armed.ask(process) is None
        assert "gave no answer within 0.2 s" in armed.last_seen
        assert "was one" == await heard.line("there")
        assert await is_ready(armed, process)


async def test_nothing_listening_is_said_so() -> None:
    port = free_port()
    async with spawned(WAITS) as (process, _):
        armed = await arm(port)
        assert "was not asked yet" in armed.last_seen
        assert await armed.ask(process) is None
        assert f"http://127.0.0.1:{port}/health refused the connection" == armed.last_seen


# --- who answers ----------------------------------------------------------------------------------


@pytest.mark.fault(13, 19)
async def test_the_answer_of_a_stranger_is_an_error_that_names_it_and_leaves_it_alone() -> None:
    port = free_port()
    with stranger(SERVES, "127.0.0.1", str(port)) as other:
        async with spawned(WAITS) as (process, _):
            armed = await arm(port)
            with pytest.raises(ForeignDaemonError) as caught:
                await armed.wait(process)
        assert f"process {other} ({sys.executable} " in caught.value.owner
        assert ("daemon", f"http://127.0.0.1:{port}/health") == (
            caught.value.daemon,
            caught.value.address,
        )
        assert lives(other)


@pytest.mark.fault(13, 19)
async def test_our_daemon_is_gone_and_the_stranger_lives_after_a_start_that_it_spoiled() -> None:
    port = free_port()
    others: list[subprocess.Popen[bytes]] = []
    pids: list[int] = []

    def take_the_port(event: object) -> None:
        if type(event).__name__ == "Spawned":
            command = [sys.executable, *QUICK_PYTHON, SERVES, "127.0.0.1", str(port)]
            others.append(subprocess.Popen(command, stdout=subprocess.PIPE))
            pids.append(getattr(event, "pid"))  # noqa: B009 - only this event has one

    config = python_daemon(WAITS, ready_mode=HealthCheck(f"http://127.0.0.1:{port}/"))
    with pytest.raises(ForeignDaemonError) as caught:
        async with DaemonLifecycle(config, observer=take_the_port).running():
            pytest.fail("the stranger counted as ready")
    (other,) = others
    try:
        assert f"process {other.pid} (" in caught.value.owner
        assert [False] == [lives(pid) for pid in pids]
        assert other.poll() is None
    finally:
        other.kill()
        other.communicate()


@pytest.mark.fault(92)
@pytest.mark.parametrize(("ours", "theirs"), [("127.0.0.1", "::1"), ("::1", "127.0.0.1")], ids=str)
async def test_localhost_is_where_our_daemon_listens_when_a_stranger_has_the_other_address(
    ours: str, theirs: str
) -> None:
    port = free_port()
    with stranger(SERVES, theirs, str(port)):
        async with spawned(SERVES, ours, str(port)) as (process, heard):
            await heard.line("listening")
            assert await is_ready(await arm(port, "localhost"), process)


@pytest.mark.fault(19, 92)
@pytest.mark.parametrize("theirs", ["127.0.0.1", "::1"])
async def test_localhost_is_foreign_when_only_a_stranger_listens_there(theirs: str) -> None:
    port = free_port()
    with stranger(SERVES, theirs, str(port)) as other:
        async with spawned(WAITS) as (process, _):
            armed = await arm(port, "localhost")
            with pytest.raises(ForeignDaemonError, match=f"process {other} "):
                await armed.wait(process)


async def test_a_listener_that_is_a_grandchild_behind_a_shell_is_ours() -> None:
    port = free_port()
    async with trio.open_nursery() as nursery:
        script = '"$@" & wait'
        command = ["sh", sys.executable, *QUICK_PYTHON, SERVES, "127.0.0.1", str(port)]
        process = await spawn(nursery, "/bin/sh", "-c", script, *command)
        assert await is_ready(await arm(port), process)
        await end(process)


FORKS = f"""{SERVER}
server = listen(*sys.argv[1:])
for _ in range(3):
    if os.fork() == 0:
        serve(server, ["200"])
server.close()
os.wait()
"""


@pytest.mark.parametrize("closes", [True, False], ids=["alone", "with the main process"])
async def test_workers_that_share_a_socket_are_ours(closes: bool) -> None:
    port = free_port()
    code = FORKS if closes else FORKS.replace("server.close()\n", "")
    async with spawned(code, "127.0.0.1", str(port)) as (process, _):
        assert await is_ready(await arm(port), process)


@pytest.mark.fault(19)
async def test_a_port_shared_with_a_stranger_is_foreign() -> None:
    """With SO_REUSEPORT the kernel gives some of the connections to the other one."""
    port = free_port()
    with stranger(SERVES_SHARED, "127.0.0.1", str(port)):
        async with spawned(SERVES_SHARED, "127.0.0.1", str(port)) as (process, heard):
            await heard.line("listening")
            with pytest.raises(ForeignDaemonError):
                await (await arm(port)).wait(process)


@pytest.mark.fault(19)
async def test_our_own_address_counts_when_a_stranger_listens_on_all() -> None:
    port = free_port()
    with stranger(SERVES_SHARED, "0.0.0.0", str(port)):
        async with spawned(SERVES_SHARED, "127.0.0.1", str(port)) as (process, heard):
            await heard.line("listening")
            assert await is_ready(await arm(port), process)


async def test_a_daemon_that_dies_while_it_answers_owns_nothing_and_is_no_stranger() -> None:
    port = free_port()
    code = f"{SERVER}\nserver = listen(*sys.argv[1:])\nserver.accept()[0].recv(9)\nos._exit(4)"
    config = python_daemon(
        code,
        "127.0.0.1",
        str(port),
        ready_mode=HealthCheck(f"http://127.0.0.1:{port}/"),
    )
    with pytest.raises(DiedBeforeReadyError) as caught:
        async with DaemonLifecycle(config).running():
            pass
    assert 4 == caught.value.exit_status


async def test_a_listener_that_forked_twice_into_a_session_of_its_own_is_ours() -> None:
    # It is in no tree and no session of ours, but it bears the name of its spawn.
    heard = Heard()
    code = (
        "import http.server, os, sys\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork() == 0:\n"
        "        address = ('127.0.0.1', int(sys.argv[1]))\n"
        "        server = http.server.HTTPServer(address, http.server.SimpleHTTPRequestHandler)\n"
        "        print('server', os.getpid(), flush=True)\n"
        "        server.serve_forever()\n"
        "    os._exit(0)\n"
        "os.wait()\n"
        "import time; time.sleep(1000)\n"
    )
    url = f"http://127.0.0.1:{FREE_PORT}/"
    config = python_daemon(
        code, FREE_PORT, ready_mode=HealthCheck(url), output=Output(to=heard), ready_timeout=20
    )

    async with DaemonLifecycle(config).running() as daemon:
        stray = await heard.pid("server")
        assert "spawned" == daemon.origin
        os.kill(stray, signal.SIGKILL)


ANSWERS_ONCE = f"""{SERVER}
server = listen(*sys.argv[1:])
connection, _ = server.accept()
connection.recv(65536)
server.close()
connection.sendall(b"HTTP/1.1 200 X\\r\\ncontent-length: 0\\r\\n\\r\\n")
connection.close()
time.sleep(1000)
"""


@pytest.mark.fault(13, 19)
async def test_a_stranger_that_leaves_while_it_answers_makes_nobody_ready() -> None:
    port = free_port()
    with stranger(f"import time\n{ANSWERS_ONCE}", "127.0.0.1", str(port)):
        async with spawned(WAITS) as (process, _):
            armed = await arm(port)
            assert await armed.ask(process) is None
            assert "answered 200" in armed.last_seen
            assert await armed.ask(process) is None
            assert "refused" in armed.last_seen


@in_simulated_time
async def test_who_answers_is_asked_again_when_it_could_not_be_looked_at() -> None:
    class Blind(SimulatedProcess):
        async def listener_at(self, host: str, port: int) -> Verdict:
            looks.append(port)
            if len(looks) == 1:
                raise OSError(errno.EMFILE, "Too many open files")
            return await super().listener_at(host, port)

    looks: list[int] = []
    simulated = SimulatedDaemon()
    process = Blind(simulated.start(8080))
    prober = SimulatedSpawner(simulated).open_prober()
    start = Start(name="daemon", instance_id="instance", port=None, prober=prober)
    armed = await HealthCheck("http://127.0.0.1:8080/").arm(start)
    assert await armed.ask(process) is None
    assert "by whom can't be seen: Too many open files" in armed.last_seen
    assert await armed.ask(process) is not None
