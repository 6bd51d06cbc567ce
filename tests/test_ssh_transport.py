"""One connection to another machine, and what is opened over it."""

# ruff: noqa: ASYNC240 - the files of a test are small, and on a local disk

import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import check_half_closeable_stream

from tests.ssh_server import server, ssh_server
from tests.sshd import Server, plain_user, running_sshd
from trio_lifecycle import SSHConnectError
from trio_lifecycle._ssh._connections import connection
from trio_lifecycle._ssh._session import LostError, Session
from trio_lifecycle._ssh._transport import MOST_SESSIONS, Transport

__all__ = ("server", "ssh_server")


async def all_of(session: Session) -> bytes:
    """What a command writes until it closes its output."""
    out = b""
    while data := await session.receive():
        out += data
    return out


async def run(transport: Transport, command: str) -> tuple[bytes, int | None]:
    """What a command has written, and how it has ended."""
    session = await transport.open_session(command)
    out = await all_of(session)
    status = await session.wait_end()
    session.close()
    return out, status


async def test_a_session_has_input_output_complaints_and_an_exit_status(server: Server) -> None:
    transport = await connection(server.target())
    session = await transport.open_session("sh -s")
    await session.send(b"echo hello; echo oops >&2; exit 3\n")
    assert b"hello\n" == await all_of(session)
    assert 3 == await session.wait_end()
    assert "oops\n" == session.complaints()
    session.close()
    session.close()
    assert 1 == transport.channels_opened
    assert transport.lost is None


async def test_the_server_in_the_process_serves_as_well(ssh_server: Server, tmp_path: Path) -> None:
    transport = await connection(ssh_server.target())
    assert (b"7\n", 3) == await run(transport, "echo $((3+4)); exit 3")
    (tmp_path / "here").write_bytes(b"x" * 100_000)
    await transport.put(tmp_path / "here", str(tmp_path / "there"), str(tmp_path / "beside"))
    assert b"x" * 100_000 == (tmp_path / "there").read_bytes()
    listener = await transport.listen()
    async with await trio.open_tcp_stream("127.0.0.1", listener.port) as caller:
        called, (host, _port) = await listener.accept()
        await caller.send_all(b"hello")
        assert (b"hello", "127.0.0.1") == (await called.receive_some(), host)
        await called.aclose()
    async with await transport.open_tcp("127.0.0.1", ssh_server.port) as stream:
        assert (await stream.receive_some()).startswith(b"SSH-2.0-")
    listener.close()


@pytest.mark.needs("sshd")
@pytest.mark.skipif(os.getuid() != 0 or plain_user() is None, reason="needs root and a plain user")
async def test_an_ordinary_user_runs_commands_as_himself() -> None:
    # With PAM, an account without a password is no locked one.
    with running_sshd(plain_user(), UsePAM="yes") as server:
        transport = await connection(server.target())
        assert (f"{server.user}\n".encode(), 0) == await run(transport, "id -un")
        await transport.close()


async def test_a_signal_is_no_exit_status(server: Server) -> None:
    transport = await connection(server.target())
    assert (b"", None) == await run(transport, "kill -s KILL $$")


async def test_only_the_end_of_the_complaints_is_kept(server: Server) -> None:
    transport = await connection(server.target())
    session = await transport.open_session("head -c 50000 /dev/zero | tr '\\0' x >&2; echo end >&2")
    assert b"" == await all_of(session)
    assert 0 == await session.wait_end()
    assert "x" * 4092 + "end\n" == session.complaints()
    session.close()


async def test_much_is_sent_and_received_while_nobody_is_made_to_hold_it_all(
    server: Server,
) -> None:
    transport = await connection(server.target())
    session = await transport.open_session("cat")
    sent = 5_000_000
    block = os.urandom(100_000)

    async def send() -> None:
        for _ in range(sent // len(block)):
            await session.send(block)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        received = bytearray()
        while len(received) < sent:
            received += await session.receive()
    assert block * (sent // len(block)) == received
    session.close()


async def test_who_sends_to_a_command_that_does_not_read_waits(server: Server) -> None:
    transport = await connection(server.target())
    session = await transport.open_session("sleep 60 & echo $!; wait")
    pid = int(await session.receive())
    with trio.move_on_after(0.3) as scope:
        await session.send(bytes(50_000_000))
    assert scope.cancelled_caught
    await run(transport, f"kill {pid}")
    session.close()
    with pytest.raises(LostError, match="closed here"):
        await session.send(b"more")
    with pytest.raises(LostError, match="closed here"):
        await session.receive()


async def test_a_cancelled_receive_loses_nothing(server: Server) -> None:
    transport = await connection(server.target())
    session = await transport.open_session("for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.02; done")
    received = b""
    while b"8\n" not in received:
        with trio.move_on_after(0.007):
            received += await session.receive()
    assert b"1\n2\n3\n4\n5\n6\n7\n8\n" == received
    session.close()


@pytest.mark.fault(79)
async def test_no_more_sessions_are_opened_than_a_server_allows(server: Server) -> None:
    transport = await connection(server.target())
    sessions = [await transport.open_session("cat") for _ in range(MOST_SESSIONS)]
    with trio.move_on_after(0.1) as scope:
        await transport.open_session("cat")
    assert scope.cancelled_caught
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, transport, "true")
        await trio.testing.wait_all_tasks_blocked()
        sessions.pop().close()
    for session in sessions:
        session.close()


@pytest.mark.needs("sshd")
@pytest.mark.fault(79)
async def test_a_server_with_fewer_sessions_is_asked_again() -> None:
    with running_sshd(MaxSessions=2) as server:
        transport = await connection(server.target())
        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(run, transport, "true")
        assert 6 == transport.channels_opened
        await transport.close()


@pytest.mark.needs("sshd")
@pytest.mark.fault(79)
async def test_a_server_that_runs_no_commands_is_named() -> None:
    with running_sshd(MaxSessions=0) as server:
        transport = await connection(server.target(connect_timeout=1))
        with pytest.raises(SSHConnectError, match="MaxSessions") as raised:
            await transport.open_session("true")
        assert "opening a session" == raised.value.phase
        await transport.close()


@pytest.mark.needs("sshd")  # asyncssh's own server does not stand it
async def test_openings_that_are_cancelled_leave_no_channel(server: Server) -> None:
    transport = await connection(server.target())
    for step in range(30):
        with trio.move_on_after(step / 2000):
            session = await transport.open_session("cat")
            session.close()
    with trio.fail_after(10):
        while transport.connection._channels:  # noqa: ASYNC110 - nothing tells of it
            await trio.sleep(0.01)
        sessions = [await transport.open_session("cat") for _ in range(MOST_SESSIONS)]
    for session in sessions:
        session.close()


async def test_a_tcp_stream_is_one_as_trio_has_them(server: Server) -> None:
    async with _listening(socket.AF_INET, ("127.0.0.1", 0)) as (address, accept):
        transport = await connection(server.target())

        async def pair() -> tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]:
            return await transport.open_tcp("127.0.0.1", address[1]), await accept()

        await check_half_closeable_stream(pair, None)


async def test_a_unix_stream_leads_to_a_socket_there(server: Server, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    async with _listening(socket.AF_UNIX, path) as (_, accept):
        transport = await connection(server.target())
        stream = await transport.open_unix(path)
        other = await accept()
        await other.send_all(b"hello")
        assert b"hello" == await stream.receive_some()
        await stream.send_eof()
        assert b"" == await other.receive_some()
        await stream.aclose()
        await other.aclose()
    with pytest.raises(ConnectionRefusedError, match="socket"):
        await transport.open_unix(path)


@asynccontextmanager
async def _listening(
    family: int, address: object
) -> AsyncIterator[tuple[tuple[str, int], Callable[[], Awaitable[trio.SocketStream]]]]:
    with trio.socket.socket(family) as listener:
        await listener.bind(address)
        listener.listen()

        async def accept() -> trio.SocketStream:
            return trio.SocketStream((await listener.accept())[0])

        yield listener.getsockname(), accept


async def test_a_port_where_nobody_listens_there_is_refused_as_here(server: Server) -> None:
    transport = await connection(server.target())
    with pytest.raises(ConnectionRefusedError, match=r"127\.0\.0\.1:1 on 127\.0\.0\.1"):
        await transport.open_tcp("127.0.0.1", 1)
    assert 0 == transport.channels_opened


@pytest.mark.needs("sshd")
@pytest.mark.parametrize("setting", ["AllowTcpForwarding no", "DisableForwarding yes"])
async def test_a_server_that_forbids_forwarding_is_named(setting: str) -> None:
    name, value = setting.split()
    with running_sshd(None, **{name: value}) as server:
        transport = await connection(server.target())
        with pytest.raises(SSHConnectError, match="AllowTcpForwarding"):
            await transport.open_tcp("127.0.0.1", server.port)
        with pytest.raises(SSHConnectError, match="AllowTcpForwarding in its"):
            await transport.listen()
        await transport.close()


async def test_who_connects_there_is_connected_to_us(server: Server) -> None:
    transport = await connection(server.target())
    listener = await transport.listen()
    async with await trio.open_tcp_stream("127.0.0.1", listener.port) as caller:
        called, (host, port) = await listener.accept()
        assert caller.socket.getsockname() == (host, port)
        await caller.send_all(b"question")
        assert b"question" == await called.receive_some()
        await called.send_all(b"answer")
        await called.aclose()
        assert b"answer" == await caller.receive_some()
    # One that nobody has accepted is closed with the listener.
    async with await trio.open_tcp_stream("127.0.0.1", listener.port) as caller:
        with trio.fail_after(5):
            while not listener._got.statistics().current_buffer_used:  # noqa: ASYNC110
                await trio.sleep(0.005)
        listener.close()
        assert b"" == await caller.receive_some()
    with pytest.raises(trio.ClosedResourceError):
        await listener.accept()


async def test_a_file_is_put_with_its_holes_and_its_mode(server: Server, tmp_path: Path) -> None:
    local, remote = tmp_path / "local", tmp_path / "remote"
    with local.open("wb") as file:
        file.write(b"x" * 70_000)
        file.truncate(300_000)
    local.chmod(0o751)
    remote.write_bytes(b"old")
    heard: list[tuple[int, int]] = []
    transport = await connection(server.target())
    await transport.put(
        local, str(remote), f"{remote}.tmp", lambda done, total: heard.append((done, total))
    )
    assert local.read_bytes() == remote.read_bytes()
    assert 0o751 == remote.stat().st_mode & 0o777
    assert (300_000, 300_000) == heard[-1]
    assert {local, remote} == {*tmp_path.iterdir()}


async def test_a_file_is_for_nobody_else_until_it_is_whole(server: Server, tmp_path: Path) -> None:
    local = tmp_path / "local"
    local.write_bytes(b"x" * 300_000)
    local.chmod(0o644)
    modes: set[int] = set()

    def look(_done: int, _total: int) -> None:
        modes.update(path.stat().st_mode & 0o777 for path in tmp_path.glob("beside"))

    await (await connection(server.target())).put(
        local, str(tmp_path / "remote"), str(tmp_path / "beside"), look
    )
    assert {0o600} == modes
    assert 0o644 == (tmp_path / "remote").stat().st_mode & 0o777


async def test_a_put_that_is_cancelled_leaves_nothing(server: Server, tmp_path: Path) -> None:
    local, there = tmp_path / "local", tmp_path / "there"
    there.mkdir()
    with local.open("wb") as file:
        file.truncate(200_000_000)
    transport = await connection(server.target())
    begun = trio.Event()
    async with trio.open_nursery() as nursery:
        hear = lambda *_: begun.set()  # noqa: E731
        nursery.start_soon(transport.put, local, str(there / "f"), str(there / "g"), hear)
        await begun.wait()
        assert 1 == len([*there.iterdir()])
        nursery.cancel_scope.cancel()
    assert [] == [*there.iterdir()]


async def test_a_put_that_the_machine_refuses_says_why(server: Server, tmp_path: Path) -> None:
    transport = await connection(server.target())
    (tmp_path / "local").write_bytes(b"x")
    with pytest.raises(SSHConnectError, match="No such file") as raised:
        await transport.put(
            tmp_path / "local", str(tmp_path / "nowhere" / "f"), str(tmp_path / "nowhere" / "g")
        )
    assert raised.value.phase.startswith("uploading")
    with pytest.raises(FileNotFoundError):
        await transport.put(tmp_path / "missing", str(tmp_path / "f"), str(tmp_path / "g"))
    with pytest.raises(OSError, match="is no file"):
        await transport.put(tmp_path, str(tmp_path / "f"), str(tmp_path / "g"))


@pytest.mark.needs("sshd")
async def test_a_server_that_does_not_answer_is_waited_for_only_so_long() -> None:
    with running_sshd() as server:
        transport = await connection(server.target())
        session = await transport.open_session("echo $PPID; cat")
        pid = int(await session.receive())
        patient, limit_s = transport.target, transport.silence_limit_s
        transport.target = server.target(connect_timeout=0.1)
        transport.silence_limit_s = 0.1
        os.kill(pid, signal.SIGSTOP)
        try:
            with trio.fail_after(4):
                with pytest.raises(SSHConnectError, match="has not answered for") as opening:
                    await transport.open_session("sh -s")
                with pytest.raises(SSHConnectError, match="has not answered for") as listening:
                    await transport.listen()
            assert "opening a session" == opening.value.phase
            assert "listening on 127.0.0.1:0 there" == listening.value.phase
        finally:
            os.kill(pid, signal.SIGCONT)
        transport.target, transport.silence_limit_s = patient, limit_s
        # What it grants late is given back.
        assert (b"", 0) == await run(transport, "true")
        assert 2 == transport.channels_opened
        await transport.close()


@pytest.mark.needs("sshd")
async def test_a_lost_connection_is_never_taken_for_the_end_of_a_command() -> None:
    with running_sshd() as server:
        transport = await connection(server.target())
        session = await transport.open_session("echo $PPID; cat")
        pid = int(await session.receive())
        listener = await transport.listen()
        os.kill(pid, signal.SIGKILL)
        await transport.wait_lost()
        with pytest.raises(LostError, match="is lost"):
            await session.wait_end()
        with pytest.raises(LostError, match="is lost"):
            await session.receive()
        with pytest.raises(LostError, match="is lost"):
            await session.send(b"x")
        with pytest.raises(LostError, match="is lost"):
            await transport.open_session("true")
        with pytest.raises(LostError, match="is lost"):
            await transport.open_tcp("127.0.0.1", 1)
        with pytest.raises(LostError, match="is lost"):
            await listener.accept()
        session.close()
        listener.close()
        await transport.close()


async def test_who_closes_a_connection_loses_what_was_opened_over_it(server: Server) -> None:
    transport = await connection(server.target())
    session = await transport.open_session("cat")
    await transport.close()
    await transport.close()
    with pytest.raises(LostError, match="it was closed"):
        await session.wait_end()
    assert transport is not await connection(server.target())
