"""Ready by gRPC's own health check, asked of a server that was written for HTTP/2 here."""

import importlib.util
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from tests.asking import ANYBODY, WAITS, arm, spawned, start
from tests.certificates import certificate, tls
from tests.servers import saying, server
from tests.simulated import in_simulated_time
from tests.support import free_port
from trio_lifecycle import (
    CALLBACK_URL,
    FREE_PORT,
    TLS,
    ConfigError,
    ForeignDaemonError,
    GRPCHealth,
)
from trio_lifecycle._grpc_health import encode_request, encode_response, explain
from trio_lifecycle.abc import Report
from trio_lifecycle.testing import HANGS, SimulatedDaemon, check_ready_mode

__all__ = ["certificate"]

GRPC = ("content-type", "application/grpc")
OK = [(":status", "200"), GRPC]
TRAILERS = [("grpc-status", "0")]


class Server:
    """Answers each call in the same way, and notes what it was asked."""

    def __init__(
        self, headers: list[tuple[str, str]], *, body: bytes = b"", trailers: bool = True
    ) -> None:
        self.headers: dict[str, str] = {}
        self.asked = b""
        self._answer = headers
        self._body = body
        self._has_trailers = trailers

    async def __call__(self, stream: trio.abc.Stream) -> None:
        config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        connection = h2.connection.H2Connection(config)
        connection.initiate_connection()
        await stream.send_all(connection.data_to_send())
        while received := await stream.receive_some(65_536):
            for event in connection.receive_data(bytes(received)):
                if isinstance(event, h2.events.RequestReceived):
                    self.headers = {str(name): str(value) for name, value in event.headers}
                elif isinstance(event, h2.events.DataReceived):
                    self.asked += event.data
                elif isinstance(event, h2.events.StreamEnded):
                    assert event.stream_id
                    self._reply(connection, event.stream_id)
            await stream.send_all(connection.data_to_send())

    def _reply(self, connection: h2.connection.H2Connection, stream_id: int) -> None:
        only_headers = not self._body and not self._has_trailers
        connection.send_headers(stream_id, self._answer, end_stream=only_headers)
        if self._body:
            connection.send_data(stream_id, self._body, end_stream=not self._has_trailers)
        if self._has_trailers:
            connection.send_headers(stream_id, TRAILERS, end_stream=True)


async def seen(talk: Server) -> str:
    """What a mode sees of a server."""
    async with server(talk) as address:
        armed = await arm(GRPCHealth(address))
        assert await armed.ask(ANYBODY) is None
        return armed.last_seen.removeprefix(address).strip()


async def test_serving_is_ready_and_the_service_is_asked_for_by_its_name() -> None:
    for service in ("", "library.Books"):
        serving = Server(OK, body=encode_response(1))
        async with server(serving) as address:
            port = int(address.rpartition(":")[2])
            armed = await arm(GRPCHealth(f"127.0.0.1:{FREE_PORT}", service), port=port)
            assert Report(None, port) == await armed.ask(ANYBODY)
        assert f"{address} answered SERVING" == armed.last_seen
        assert encode_request(service) == serving.asked
        wanted = {":method": "POST", ":path": "/grpc.health.v1.Health/Check", "te": "trailers"}
        assert wanted.items() <= serving.headers.items()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Server(OK, body=encode_response(2)), "answered NOT_SERVING"),
        (Server(OK, body=encode_response(0)), "answered UNKNOWN"),
        (Server(OK, body=encode_response(300)), "answered 300"),
        (Server(OK), "answered with no message that can be read"),
        (Server(OK, body=b"\1\0\0\0\0"), "answered with no message that can be read"),
        (
            Server([*OK, ("grpc-status", "12")], trailers=False),
            "answered with gRPC status 12, UNIMPLEMENTED: it has no health service",
        ),
        (Server([*OK, ("grpc-status", "13")], trailers=False), "answered with gRPC status 13"),
        (Server([(":status", "404")], trailers=False), "answered 404"),
        (Server([(":status", "200")], body=b"hello"), "answered, but not by gRPC"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_anything_else_is_not_ready_and_said(answer: Server, expected: str) -> None:
    assert expected == await seen(answer)


@pytest.mark.fault(23)
async def test_what_is_no_http_2_is_a_problem_and_nobody_is_absent() -> None:
    for chunks in ([b"HTTP/1.1 400 X\r\n\r\n"], [b""], [bytes(range(256)) * 9]):
        async with server(saying(*chunks)) as address:
            armed = await arm(GRPCHealth(address))
            assert await armed.ask(ANYBODY) is None
            assert "gave no HTTP answer" in armed.last_seen
    armed = await arm(GRPCHealth(f"localhost:{free_port()}"))
    assert await armed.ask(ANYBODY) is None
    assert "refused the connection" in armed.last_seen


@pytest.mark.needs("openssl")
async def test_it_speaks_tls_if_it_is_to(certificate: Path) -> None:
    context = tls(certificate)
    context.set_alpn_protocols(["h2"])
    async with server(Server(OK, body=encode_response(1)), context) as address:
        port = address.rpartition(":")[2]
        for host in ("127.0.0.1", "localhost"):
            armed = await arm(GRPCHealth(f"{host}:{port}", tls=TLS(ca_file=certificate)))
            assert await armed.ask(ANYBODY) is not None
        armed = await arm(GRPCHealth(f"127.0.0.1:{port}", tls=TLS()))
        assert await armed.ask(ANYBODY) is None
        assert "certificate verify failed" in armed.last_seen
    with pytest.raises(ConfigError, match="none can't be read"):
        await arm(GRPCHealth("127.0.0.1:1", tls=TLS(ca_file="/none")))


@pytest.mark.fault(19)
async def test_a_stranger_that_serves_is_foreign_and_is_found_before_the_spawn() -> None:
    async with server(Server(OK, body=encode_response(1))) as address:
        async with spawned(WAITS) as (process, _):
            with pytest.raises(ForeignDaemonError, match=f"{address} is answered by"):
                await (await arm(GRPCHealth(address))).wait(process)
        sighting = await GRPCHealth(address).find_running(start().prober)
    assert sighting is not None
    assert f"{address} answered SERVING" == sighting.detail
    assert Report(None, int(address.rpartition(":")[2])) == sighting.report
    assert await GRPCHealth(address).find_running(start().prober) is None
    assert await GRPCHealth(f"127.0.0.1:{FREE_PORT}").find_running(start().prober) is None


async def test_without_h2_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'trio-lifecycle\[grpc\]'"):
        await arm(GRPCHealth("127.0.0.1:1"))
    assert await GRPCHealth("127.0.0.1:1").find_running(start().prober) is None


async def test_nobody_is_asked_twice_whether_he_listens() -> None:
    """To connect before asking is for the time when nobody listens; some servers log it."""
    taken: list[bytes] = []

    async def note(stream: trio.abc.Stream) -> None:
        taken.append(bytes(await stream.receive_some(1)))

    async with server(note) as address:
        armed = await arm(GRPCHealth(address))
        for _ in range(3):
            assert await armed.ask(ANYBODY) is None
        await trio.testing.wait_all_tasks_blocked()
    assert [b"", b"P", b"P", b"P"] == taken


# --- the messages ---------------------------------------------------------------------------------


def test_a_question_is_as_protobuf_writes_it() -> None:
    assert b"\0\0\0\0\0" == encode_request("")
    assert b"\0\0\0\0\5\x0a\3abc" == encode_request("abc")
    assert b"\0\0\0\0\xcb\x0a\xc8\x01" + b"x" * 200 == encode_request("x" * 200)


def answer(message: bytes) -> tuple[bool, str]:
    return explain(dict([GRPC]), b"\0" + len(message).to_bytes(4) + message)


def test_fields_that_are_not_known_are_passed_over() -> None:
    others = b"\x12\2ab" + b"\x19" + b"x" * 8 + b"\x25" + b"x" * 4 + b"\x28\x96\x01"
    assert (True, "answered SERVING") == answer(others + b"\x08\x01")
    assert (False, "answered UNKNOWN") == answer(others)
    assert (False, "answered with no message that can be read") == answer(b"\x0b")
    assert (False, "answered with no message that can be read") == answer(b"\x08" + b"\xff" * 11)


@given(st.binary(max_size=40))
def test_any_bytes_are_an_answer(body: bytes) -> None:
    serves, said = explain(dict([GRPC]), body)
    assert said.startswith("answered")
    assert serves == (said == "answered SERVING")


# --- the value ------------------------------------------------------------------------------------


@in_simulated_time
async def test_it_keeps_the_contract() -> None:
    await check_ready_mode(GRPCHealth(f"localhost:{FREE_PORT}", "a.B", tls=TLS(verify=False)))


@in_simulated_time
async def test_in_simulated_time_it_serves_while_the_health_is_a_success() -> None:
    simulated = SimulatedDaemon(health=[(0, HANGS), (1, 503), (3, 200)])
    mode = GRPCHealth(f"127.0.0.1:{FREE_PORT}")
    async with simulated.lifecycle(ready_mode=mode).running() as daemon:
        assert 3 <= daemon.ready_after_s < 3.2


@pytest.mark.fault(92)
@pytest.mark.parametrize(
    ("field", "args"),
    [
        ("address", {"address": "127.0.0.1"}),
        ("address", {"address": "127.0.0.1:0"}),
        ("address", {"address": "127.0.0.1:1/x"}),
        ("address", {"address": "http://127.0.0.1:1"}),
        ("address", {"address": "a b:1"}),
        ("address", {"address": 1}),
        ("address", {"address": f"{CALLBACK_URL}:1"}),
        ("service", {"address": "a:1", "service": 1}),
        ("service", {"address": "a:1", "service": FREE_PORT}),
        ("tls", {"address": "a:1", "tls": True}),
    ],
)
def test_what_can_be_no_server_is_refused(field: str, args: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=f"^{field}:"):
        GRPCHealth(**args)  # type: ignore[arg-type]


def test_its_options_are_shown() -> None:
    shown = repr(GRPCHealth("[::1]:1", "a.B", tls=TLS(ca_file="x")))
    assert shown.startswith("GRPCHealth('[::1]:1', service='a.B', tls=TLS(verify=True, ca_file='x'")
    limits = "interval=0.1, probe_timeout=1.0"
    assert f"GRPCHealth('a:{{FREE_PORT}}', {limits})" == repr(GRPCHealth(f"a:{FREE_PORT}"))
