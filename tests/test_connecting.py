"""Connections that have found nobody but themselves."""

import errno
import socket
from collections.abc import Iterator

import pytest
import trio

from tests.support import free_port
from trio_lifecycle import _contacts
from trio_lifecycle._connecting import REFUSED, connect_now, new_socket
from trio_lifecycle._http import HTTPClient
from trio_lifecycle.abc import Contact, Question


@pytest.fixture
def port() -> Iterator[int]:
    """A port that a daemon can have afterwards, also one that insists on a clean one."""
    number = free_port()
    yield number
    with socket.socket() as daemon:
        daemon.bind(("127.0.0.1", number))
        daemon.listen()


@pytest.fixture
def chosen(port: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """The port that the kernel happens to choose for the connection itself, too."""

    async def connect_from_there(*_: object, **__: object) -> trio.SocketStream:
        sock = trio.socket.socket()
        await sock.bind(("127.0.0.1", port))
        await sock.connect(("127.0.0.1", port))
        return trio.SocketStream(sock)

    monkeypatch.setattr(trio, "open_tcp_stream", connect_from_there)
    return port


def test_a_connection_that_reaches_itself_is_refused(port: int) -> None:
    with new_socket(("127.0.0.1", port)) as sock:
        sock.bind(("127.0.0.1", port))
        assert errno.ECONNREFUSED == connect_now(sock, ("127.0.0.1", port))


async def test_a_contact_that_reaches_itself_is_none(chosen: int) -> None:
    assert Contact(False, REFUSED, absent=True) == await _contacts.connect("a.example", chosen)


@pytest.mark.parametrize("http2", [False, True])
async def test_a_question_that_reaches_itself_finds_nobody(chosen: int, http2: bool) -> None:
    question = Question(f"http://a.example:{chosen}/", http2=http2)
    answer = await HTTPClient().ask(question)
    assert (None, True) == (answer.status, answer.absent)
    assert "refused" in answer.problem
