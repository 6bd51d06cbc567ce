"""Ready by a TCP port: that a connection is taken, and by whom."""

import pytest
import trio

from tests.asking import WAITS, arm, spawned, start
from tests.simulated import in_simulated_time
from tests.support import PATIENCE_S, free_port
from tests.test_health import SERVER, stranger
from trio_lifecycle import (
    CALLBACK_URL,
    FREE_PORT,
    ConfigError,
    ForeignDaemonError,
    ReadyTimeoutError,
    TCPPort,
)
from trio_lifecycle.abc import Report
from trio_lifecycle.testing import HANGS, REFUSES, SimulatedDaemon, check_ready_mode

LISTENS = f"{SERVER}\nserver = listen(*sys.argv[1:3])\nimport time; time.sleep(1000)"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
async def test_a_port_that_takes_connections_is_ready_though_nothing_is_answered(host: str) -> None:
    port = free_port()
    listens_at = "::1" if host == "::1" else "127.0.0.1"
    async with spawned(LISTENS, listens_at, port) as (process, _):
        armed = await arm(TCPPort(FREE_PORT, host), port=port)
        with trio.fail_after(PATIENCE_S):
            assert Report(None, port) == await armed.wait(process)
        assert "took the connection" in armed.last_seen
        again = await TCPPort(port, host).arm_again(start())
        assert Report(None, port) == await again.ask(process)


async def test_a_port_where_nobody_listens_is_refused_and_not_there_before_the_spawn() -> None:
    port = free_port()
    async with spawned(WAITS) as (process, _):
        armed = await arm(TCPPort(port))
        assert await armed.ask(process) is None
        assert f"127.0.0.1:{port} refused the connection" == armed.last_seen
    assert await TCPPort(port).find_running(start().prober) is None
    assert await TCPPort(FREE_PORT).find_running(start().prober) is None


@pytest.mark.fault(13, 19)
async def test_a_port_that_a_stranger_has_is_foreign_and_he_is_found_before_the_spawn() -> None:
    port = free_port()
    with stranger(LISTENS, "127.0.0.1", str(port)) as other:
        async with spawned(WAITS) as (process, _):
            with pytest.raises(ForeignDaemonError, match=f"process {other} "):
                await (await arm(TCPPort(port))).wait(process)
        prober = start().prober
        sighting = await TCPPort(port).find_running(prober)
        assert sighting is not None
        assert (Report(None, port), ("127.0.0.1", port)) == (sighting.report, sighting.address)
        assert other == (await prober.owner_of("127.0.0.1", port)).pid


@pytest.mark.fault(92)
async def test_localhost_is_where_our_daemon_listens_though_a_stranger_has_the_other_address() -> (
    None
):
    port = free_port()
    with stranger(LISTENS, "127.0.0.1", str(port)):
        async with spawned(LISTENS, "::1", port) as (process, heard):
            await heard.line("listening")
            assert await (await arm(TCPPort(port, "localhost"))).ask(process) is not None


async def test_a_host_that_is_no_address_of_this_machine_is_asked_and_believed() -> None:
    async with spawned(WAITS) as (process, _):
        armed = await arm(TCPPort(9, "255.255.255.255"))
        assert await armed.ask(process) is None
        assert "could not be connected to" in armed.last_seen


async def test_a_connection_that_is_neither_taken_nor_refused_ends_at_the_limit() -> None:
    """A listener whose queue is full drops what comes."""
    with trio.socket.socket() as listener:
        await listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        filling = [trio.socket.socket() for _ in range(2)]
        try:
            for sock in filling:
                with trio.move_on_after(0.2):
                    await sock.connect(("127.0.0.1", port))
            sighting = await TCPPort(port, probe_timeout=0.2).find_running(start().prober)
        finally:
            for sock in filling:
                sock.close()
    assert sighting is not None
    assert sighting.report is None
    assert f"127.0.0.1:{port} took no connection within 0.2 s" == sighting.detail


@in_simulated_time
async def test_in_simulated_time_it_is_ready_when_the_daemon_listens_though_it_never_answers() -> (
    None
):
    simulated = SimulatedDaemon(health=[(0, REFUSES), (3, HANGS)])
    async with simulated.lifecycle(ready_mode=TCPPort(FREE_PORT)).running() as daemon:
        assert 3 <= daemon.ready_after_s < 3.1
    with pytest.raises(ReadyTimeoutError, match="refused the connection"):
        async with simulated.lifecycle(ready_mode=TCPPort(FREE_PORT), ready_timeout=2).running():
            pass


@in_simulated_time
async def test_it_keeps_the_contract() -> None:
    await check_ready_mode(TCPPort(8081))
    await check_ready_mode(TCPPort(FREE_PORT, "localhost"), waits=False)


@pytest.mark.fault(91, 92)
@pytest.mark.parametrize(
    ("field", "args"),
    [
        ("port", {"port": 0}),
        ("port", {"port": 65_536}),
        ("port", {"port": True}),
        ("port", {"port": "8080"}),
        ("port", {"port": CALLBACK_URL}),
        ("host", {"port": 1, "host": "a b"}),
        ("host", {"port": 1, "host": "[::1]"}),
        ("host", {"port": 1, "host": None}),
        ("interval", {"port": 1, "interval": 0}),
        ("probe_timeout", {"port": 1, "probe_timeout": -1}),
    ],
)
def test_what_can_be_no_port_is_refused(field: str, args: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=f"^{field}:"):
        TCPPort(**args)  # type: ignore[arg-type]
