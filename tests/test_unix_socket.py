"""Ready by a UNIX socket: that a connection is taken, and by whom."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from attrs import evolve

from tests.asking import WAITS, arm, listening_at, spawned, start
from tests.simulated import in_simulated_time
from tests.support import PATIENCE_S, Heard, free_port, python_daemon, wait_until_gone
from trio_lifecycle import (
    CALLBACK_URL,
    FREE_PORT,
    ConfigError,
    DaemonLifecycle,
    ForeignDaemonError,
    HealthCheck,
    ListenSocket,
    Output,
    UnixSocket,
)
from trio_lifecycle.abc import Report
from trio_lifecycle.testing import SimulatedDaemon, check_ready_mode

LISTENS = """
import os, socket, sys, time
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
server.listen()
print("listening", os.getpid(), flush=True)
"""
ANSWERS = """
while True:
    connection, _ = server.accept()
    if connection.recv(65536):
        connection.sendall(b"HTTP/1.1 200 X\\r\\ncontent-length: 0\\r\\n\\r\\n")
    connection.close()
"""
SERVES = LISTENS + ANSWERS
# Who has called listen(2) is no more; a child of his has the socket.
HANDS_ON = f"""{LISTENS}
if os.fork():
    os._exit(0)
time.sleep(1000)
"""
WRAPPED = f"""
import os, sys, time
if not os.fork():
    exec({HANDS_ON!r})
os.wait()
time.sleep(1000)
"""


@pytest.mark.parametrize("code", [f"{LISTENS}\ntime.sleep(1000)", WRAPPED], ids=["own", "handed"])
async def test_a_socket_of_the_tree_is_ready(code: str, tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    async with spawned(code, path) as (process, heard):
        armed = await arm(UnixSocket(path), port=7)
        with trio.fail_after(PATIENCE_S):
            assert Report(None, 7) == await armed.wait(process)
            if code is WRAPPED:
                await wait_until_gone(await heard.pid("listening"))
        assert Report() == await (await UnixSocket(path).arm_again(start())).ask(process)
        assert f"{path} took the connection" == armed.last_seen


async def test_what_was_left_behind_of_a_socket_is_not_there(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "left"))
    (tmp_path / "file").touch()
    async with spawned(WAITS) as (process, _):
        for name in ("left", "file", "none", "file/below"):
            armed = await arm(UnixSocket(tmp_path / name))
            assert await armed.ask(process) is None
            assert await UnixSocket(tmp_path / name).find_running(start().prober) is None
            assert ("refused" in armed.last_seen) == (name in ("left", "file"))


async def test_a_socket_for_messages_and_one_with_a_full_queue_are_there_and_not_ready(
    tmp_path: Path,
) -> None:
    messages, full = tmp_path / "messages", tmp_path / "full"
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams,
        socket.socket(socket.AF_UNIX) as listener,
        socket.socket(socket.AF_UNIX) as client,
    ):
        datagrams.bind(str(messages))
        listener.bind(str(full))
        listener.listen(0)
        client.connect(str(full))
        prober = start().prober
        for path, problem in ((messages, "wrong type"), (full, "too many wait already")):
            sighting = await UnixSocket(path).find_running(prober)
            assert sighting is not None
            assert sighting.report is None
            assert problem in sighting.detail


@pytest.mark.fault(19)
async def test_a_socket_of_a_stranger_is_foreign(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    async with listening_at(path), spawned(WAITS) as (process, _):
        for mode in (UnixSocket(path), UnixSocket(f"{tmp_path}/./a.sock")):
            with pytest.raises(ForeignDaemonError, match=r"a\.sock is answered by"):
                await (await arm(mode)).wait(process)
        assert f"process {os.getpid()} (" in await start().prober.describe_owner(str(path), 0)


@pytest.mark.parametrize("mode", ["socket", "http"])
async def test_one_that_listens_already_is_adopted_and_one_of_another_program_is_foreign(
    mode: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.sock"
    asks = UnixSocket(path) if mode == "socket" else HealthCheck("http://d/", unix_socket=path)
    config = python_daemon(SERVES, str(path), ready_mode=asks)
    async with DaemonLifecycle(config).running() as first:
        assert "spawned" == first.origin
        async with DaemonLifecycle(config).running() as second:
            assert ("adopted", first.pid) == (second.origin, second.pid)
            assert (None, "running") == (second.url, await second.check())
        with pytest.raises(ForeignDaemonError, match=f"process {first.pid} "):
            await DaemonLifecycle(
                evolve(config, binary_name="/bin/true", detach=True)
            ).ensure_running()


async def test_who_listens_is_found_though_the_path_was_bound_by_another_name(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.sock"
    config = python_daemon(SERVES, "a.sock", working_dir=tmp_path, ready_mode=UnixSocket("a.sock"))
    async with DaemonLifecycle(config).running() as daemon:
        assert daemon.pid == (await start().prober.owner_of(str(path), 0)).pid
    assert (await start().prober.owner_of(str(path), 0)).pid is None
    assert "can't be seen" in await start().prober.describe_owner(str(path), 0)


@pytest.fixture
def left_behind(tmp_path: Path) -> Iterator[Path]:
    """A path whose file is gone, while somebody still listens at what it was."""
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
        left.listen()
        path.unlink()
        yield path


@pytest.mark.fault(19)
async def test_of_several_who_were_bound_to_a_path_the_one_who_has_its_file_is_found(
    left_behind: Path,
) -> None:
    # Who has called listen(2) is not who answers: only the socket itself can tell.
    heard = Heard()
    mode = UnixSocket(left_behind)
    config = python_daemon(WRAPPED, str(left_behind), ready_mode=mode, output=Output(to=heard))
    async with DaemonLifecycle(config).running() as daemon:
        # Until he is gone he may be taken for the one who answers.
        await wait_until_gone(await heard.pid("listening"))
        async with DaemonLifecycle(config).running() as found:
            assert ("adopted", "running") == (found.origin, await found.check())
        assert "running" == await daemon.check()
        owner = await start().prober.owner_of(str(left_behind), 0)
        assert owner.pid is not None
        assert os.getpid() != owner.pid


async def test_a_socket_that_is_passed_is_the_daemons_whoever_had_its_path_before(
    left_behind: Path,
) -> None:
    code = f"import socket; server = socket.socket(fileno=3){ANSWERS}"
    asks = HealthCheck("http://d/", unix_socket=left_behind)
    config = python_daemon(code, ready_mode=asks, listen=[ListenSocket(unix=left_behind)])
    async with DaemonLifecycle(config).running() as daemon:
        assert "spawned" == daemon.origin


async def test_free_port_stands_in_a_path_and_a_relative_one_is_of_the_daemons_directory(
    tmp_path: Path,
) -> None:
    path = f"{FREE_PORT}.sock"
    config = python_daemon(SERVES, path, working_dir=tmp_path, ready_mode=UnixSocket(path))
    async with DaemonLifecycle(config).running() as daemon:
        assert (tmp_path / f"{daemon.port}.sock").is_socket()
    for unknown in ("a.sock", f"/{FREE_PORT}"):
        assert await UnixSocket(unknown).find_running(start().prober) is None
        health = HealthCheck("http://d/", unix_socket=unknown)
        assert await health.find_running(start().prober) is None


async def test_http_over_a_socket_is_asked_there_and_nowhere_else(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    mode = HealthCheck(f"http://127.0.0.1:{free_port()}/", unix_socket=path)
    async with spawned(SERVES, path) as (process, _):
        with trio.fail_after(PATIENCE_S):
            assert Report() == await (await arm(mode)).wait(process)
    path.unlink()
    async with listening_at(path), spawned(WAITS) as (process, _):
        assert await (await arm(evolve(mode, probe_timeout=0.05))).ask(process) is None
    path.unlink()
    async with spawned(SERVES, path) as (_, heard), spawned(WAITS) as (process, _):
        await heard.line("listening")
        with pytest.raises(ForeignDaemonError):
            await (await arm(mode)).wait(process)


def too_long(characters: int) -> str:
    return "/" + "x" * (characters - 1)


async def test_a_path_may_have_107_bytes_with_the_daemons_directory(tmp_path: Path) -> None:
    UnixSocket(too_long(107))
    UnixSocket(too_long(102) + FREE_PORT)
    for path in (too_long(108), too_long(103) + FREE_PORT, "/" + "ä" * 54):
        with pytest.raises(ConfigError, match="107 at most"):
            UnixSocket(path)
        with pytest.raises(ConfigError, match=r"^unix_socket: .* 107 at most"):
            HealthCheck("http://d/", unix_socket=path)
    with pytest.raises(ConfigError, match=r"^path: .* 107 at most"):
        await arm(UnixSocket("x" * 107), working_dir=tmp_path)
    contact = await start().prober.connect_unix(too_long(200))
    assert (False, False) == (contact.made, contact.absent)


@pytest.mark.parametrize("path", ["", "/tmp/", "a\0b", CALLBACK_URL, None, b"/x", "\ud800"])
def test_what_can_be_no_path_is_refused(path: str) -> None:
    with pytest.raises(ConfigError, match=r"^path:"):
        UnixSocket(path)


@in_simulated_time
async def test_it_keeps_the_contract() -> None:
    await check_ready_mode(UnixSocket(f"/run/{FREE_PORT}.sock"), waits=False)


@in_simulated_time
async def test_in_simulated_time_a_socket_belongs_to_who_bound_it_last() -> None:
    simulated = SimulatedDaemon(ready_after=2.0, path="/run/it.sock")
    mode = UnixSocket("/run/it.sock")
    async with simulated.lifecycle(ready_mode=mode).running() as daemon:
        assert 2.0 <= daemon.ready_after_s < 2.1
        other = simulated.start()
        assert "running" == await daemon.check()
        await trio.sleep(2.0)
        assert "unknown" == await daemon.check()
        other.signal(9)
    stranger = SimulatedDaemon(is_foreign=True)
    with pytest.raises(ForeignDaemonError):
        async with stranger.lifecycle(ready_mode=mode).running():
            pass
