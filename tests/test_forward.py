"""Forwards: a port of this machine that leads elsewhere."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from tests.servers import OK, saying, server
from trio_lifecycle._ssh._forward import Forward


@asynccontextmanager
async def forward_to(address: str, host: str = "127.0.0.1") -> AsyncIterator[Forward]:
    """A forward to a server, whose connections stand for channels."""

    async def open_there() -> trio.SocketStream:
        name, _, port = address.rpartition(":")
        try:
            return await trio.open_tcp_stream(name, int(port))
        except OSError as error:
            raise ConnectionRefusedError from error

    forward = Forward(host, open_there)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(forward.run)
        yield forward
        nursery.cancel_scope.cancel()


async def read_all(stream: trio.SocketStream) -> bytes:
    with trio.fail_after(10):
        return b"".join([bytes(chunk) async for chunk in stream])


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_who_connects_here_talks_to_the_server_there(host: str) -> None:
    async with server(saying(OK)) as address, forward_to(address, host) as forward:
        for _ in range(3):
            async with await trio.open_tcp_stream(host, forward.port) as stream:
                await stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
                assert OK == await read_all(stream)


async def test_the_end_of_what_one_side_says_is_passed_on_while_the_other_goes_on() -> None:
    async def echo_at_the_end(stream: trio.abc.Stream) -> None:
        heard = b""
        while chunk := await stream.receive_some(65_536):
            heard += bytes(chunk)
        await stream.send_all(heard)

    said = b"x" * 3_000_000
    async with server(echo_at_the_end) as address, forward_to(address) as forward:
        stream = await trio.open_tcp_stream("127.0.0.1", forward.port)
        async with stream:
            await stream.send_all(said)
            await stream.send_eof()
            assert said == await read_all(stream)


async def test_who_connects_is_hung_up_on_when_nobody_listens_there() -> None:
    async with server(saying(OK)) as address:
        pass
    async with forward_to(address) as forward:
        for _ in range(2):
            async with await trio.open_tcp_stream("127.0.0.1", forward.port) as stream:
                assert b"" == await read_all(stream)


async def test_a_connection_that_is_reset_ends_alone() -> None:
    async with server(saying(OK)) as address, forward_to(address) as forward:
        first = await trio.open_tcp_stream("127.0.0.1", forward.port)
        first.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await first.aclose()
        async with await trio.open_tcp_stream("127.0.0.1", forward.port) as stream:
            await stream.send_all(b"x")
            assert OK == await read_all(stream)


async def test_the_port_is_free_again_when_it_ends() -> None:
    async with server(saying(OK)) as address, forward_to(address) as forward:
        port = forward.port
    with pytest.raises(OSError, match="all attempts"):
        await trio.open_tcp_stream("127.0.0.1", port)


async def test_a_forward_that_nobody_serves_can_be_closed() -> None:
    forward = Forward("127.0.0.1", trio.sleep_forever)
    forward.close()
    forward.close()
    with pytest.raises(OSError, match="all attempts"):
        await trio.open_tcp_stream("127.0.0.1", forward.port)
