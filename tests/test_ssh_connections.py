"""One connection for each machine, shared; made anew when it is lost, gone with the Trio run."""

import logging
import os
import signal
import threading

import pytest
import trio
import trio_asyncio

from tests.ssh_server import server, ssh_server
from tests.sshd import Server, make_key, running_sshd
from trio_lifecycle import SSHAuthError, SSHConnectError
from trio_lifecycle._ssh._connections import connection
from trio_lifecycle._ssh._session import LostError
from trio_lifecycle._ssh._target import SSHTarget
from trio_lifecycle._ssh._transport import Transport

__all__ = ("server", "ssh_server")


async def pid_there(transport: Transport) -> int:
    """The process of the server that serves this connection."""
    session = await transport.open_session("echo $PPID")
    pid = int(await session.receive())
    session.close()
    return pid


async def test_who_asks_at_once_and_later_shares_one_connection(server: Server) -> None:
    found: list[Transport] = []

    async def ask() -> None:
        found.append(await connection(server.target()))

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(ask)
    await ask()
    assert 11 == len(found)
    assert 1 == len(set(found))
    other = await connection(server.target(connect_timeout=9))
    assert other is not found[0]


async def test_an_asker_who_is_cancelled_takes_nothing_from_the_others(server: Server) -> None:
    async def ask_and_leave() -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            await connection(server.target())

    async def ask_shortly() -> None:
        with trio.move_on_after(0.001):
            await connection(server.target())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask_and_leave)
        nursery.start_soon(ask_shortly)
        transport = await connection(server.target())
    assert transport.lost is None


async def test_connects_that_are_cancelled_leave_nothing(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    for step in range(20):
        with trio.move_on_after(step / 300):
            # Each another target, so that each connects.
            await connection(server.target(connect_timeout=10 + step))
    assert [] == caplog.records


async def test_a_run_may_end_while_a_connection_is_made(server: Server) -> None:
    trio.lowlevel.spawn_system_task(_ask, server.target())
    await trio.testing.wait_all_tasks_blocked()


async def _ask(target: SSHTarget) -> None:
    try:
        await connection(target)
    except (LostError, SSHConnectError):
        return


def test_runs_one_after_another_and_in_threads_have_connections_of_their_own(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    found: list[Transport] = []

    async def main() -> None:
        found.append(await connection(server.target()))

    for _ in range(2):
        trio.run(main)
    threads = [threading.Thread(target=trio.run, args=(main,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 4 == len(set(found))
    assert {"it was closed"} == {transport.lost for transport in found}
    assert [] == caplog.records


def test_a_thread_of_a_run_may_run_trio_itself(server: Server) -> None:
    async def main() -> None:
        await connection(server.target())

    async def outer() -> None:
        async with trio_asyncio.open_loop():
            await main()
            await trio.to_thread.run_sync(trio.run, main)

    trio.run(outer)


async def test_a_loop_of_the_application_is_borrowed_and_its_connections_end_with_it(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    own = await connection(server.target())
    async with trio_asyncio.open_loop() as loop:
        borrowed = await connection(server.target())
        assert borrowed is await connection(server.target())
        assert loop is borrowed._bridge.loop
        session = await borrowed.open_session("cat")
        await session.send(b"hello")
        assert b"hello" == await session.receive()
    assert "it was closed" == borrowed.lost
    with pytest.raises(LostError):
        await session.wait_end()
    with pytest.raises(LostError):
        await borrowed.open_session("true")
    session.close()
    assert own.lost is None
    assert own is await connection(server.target())
    assert [] == caplog.records


@pytest.mark.needs("sshd")
async def test_a_frozen_machine_is_noticed_and_connected_to_anew() -> None:
    with running_sshd() as server:
        target = server.target(keepalive_interval=0.3, keepalive_count=2)
        transport = await connection(target)
        session = await transport.open_session("echo $PPID; cat")
        pid = int(await session.receive())
        os.kill(pid, signal.SIGSTOP)
        try:
            with trio.fail_after(9), pytest.raises(LostError, match="keepalive"):
                await session.wait_end()
            await transport.wait_lost()
            assert transport.lost is not None
            again = await connection(target)
            assert again is not transport
            assert pid != await pid_there(again)
        finally:
            os.kill(pid, signal.SIGCONT)
        await again.close()


@pytest.mark.needs("sshd")
async def test_a_server_that_hangs_up_on_newcomers_is_asked_again() -> None:
    with running_sshd(MaxStartups="1:100:2") as server:
        async with trio.open_nursery() as nursery:
            for step in range(6):
                nursery.start_soon(connection, server.target(connect_timeout=20 + step))


async def test_a_refusal_is_shared_and_not_asked_for_again(
    server: Server, tmp_path_factory: pytest.TempPathFactory
) -> None:
    key = make_key(tmp_path_factory.mktemp("keys") / "other")
    errors: list[SSHConnectError] = []

    async def ask() -> None:
        with pytest.raises(SSHAuthError) as raised:
            await connection(server.target(client_keys=key))
        errors.append(raised.value)

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(ask)
    assert 5 == len({id(error) for error in errors})
    assert 1 == len({id(error.__cause__) for error in errors})
    assert 1 == len({str(error) for error in errors})
