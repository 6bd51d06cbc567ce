"""Who listens on a port, who holds the socket, and who is at the other end of a connection."""

import errno
import os
import select
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

import pytest

from trio_lifecycle import _proc, _sock_diag
from trio_lifecycle._listeners import Listener, answering
from trio_lifecycle._proc import connection_uid, holder_of, holds_socket, listeners_at

ME = os.getpid()


@pytest.fixture
def gone() -> int:
    """The number of a process that has ended and been waited for."""
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(pid, 0)
    return pid


# --- who listens ----------------------------------------------------------------------------------


@contextmanager
def listening(
    address: str = "127.0.0.1",
    port: int = 0,
    *,
    ipv6_only: bool = True,
    shared: bool = False,
    interface: str = "",
) -> Iterator[socket.socket]:
    """A socket that listens."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as server:
        if family == socket.AF_INET6:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, ipv6_only)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shared)
        # Without REUSEADDR, an exact address and the wildcard can't both be bound.
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if interface:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        server.bind((address, port))
        server.listen()
        yield server


def port_of(server: socket.socket) -> int:
    return int(server.getsockname()[1])


def inode_of(descriptor: socket.socket) -> int:
    return os.fstat(descriptor.fileno()).st_ino


def listeners(port: int) -> list[Listener]:
    """Who listens on a port at any address."""
    families = (socket.AF_INET, socket.AF_INET6)
    return [found for family in families for found in _proc._listeners(family, port)]


def refuse_netlink(*_: object) -> None:
    raise PermissionError(errno.EACCES, "refused by the sandbox")


@pytest.fixture(params=["netlink", "table"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways in which the kernel tells of sockets."""
    if request.param == "table":
        monkeypatch.setattr(_proc, "listening_sockets", refuse_netlink)
        monkeypatch.setattr(_proc, "find_connection", refuse_netlink)
    return str(request.param)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2", "0.0.0.0", "::1", "::"])
def test_listener_is_found_at_its_address(way: str, address: str) -> None:
    with listening(address) as server:
        ipv6_only = ":" in address and way == "netlink"
        expected = Listener(address, port_of(server), inode_of(server), os.geteuid(), 0, ipv6_only)
        assert [expected] == listeners(port_of(server))


def test_socket_that_takes_both_families_says_so(way: str) -> None:
    with listening("::", ipv6_only=False) as server:
        (found,) = listeners(port_of(server))
        assert not found.ipv6_only
        assert [found] == answering([found], "127.0.0.1")
        assert [found] == answering([found], "::1")


def test_port_without_a_listener_has_none(way: str) -> None:
    with listening() as server:
        port = port_of(server)
    assert [] == listeners(port)


def test_connections_of_a_port_are_no_listeners(way: str) -> None:
    with listening() as server, socket.create_connection(server.getsockname()):
        assert [inode_of(server)] == [found.inode for found in listeners(port_of(server))]


def test_listeners_on_many_addresses_come_in_one_answer(way: str) -> None:
    with ExitStack() as stack:
        first = stack.enter_context(listening(shared=True))
        port = port_of(first)
        more = [stack.enter_context(listening(port=port, shared=True)) for _ in range(600)]
        assert {inode_of(server) for server in (first, *more)} == {
            found.inode for found in listeners(port)
        }


# Who gets the connection, of all who listen: address, IPv6 only, interface.
ANY, ANY6, DUAL = ("0.0.0.0", True, ""), ("::", True, ""), ("::", False, "")
ONE, ONE6, MAPPED = ("127.0.0.1", True, ""), ("::1", True, ""), ("::ffff:127.0.0.1", False, "")
ON_LO, ANY_ON_LO = ("127.0.0.1", True, "lo"), ("0.0.0.0", True, "lo")
RIVALS = [
    ("127.0.0.1", [ANY, ONE, ANY6]),
    ("127.0.0.1", [ONE, DUAL]),
    ("127.0.0.1", [ANY, ANY6]),
    ("127.0.0.1", [DUAL]),
    ("127.0.0.1", [MAPPED, ANY]),
    ("127.0.0.2", [ONE, ANY]),
    ("127.0.0.1", [ONE, ON_LO]),
    ("127.0.0.1", [ONE, ANY_ON_LO]),
    ("127.0.0.1", [ANY, ANY_ON_LO]),
    ("::1", [ANY, ANY6, ONE6]),
    ("::1", [ANY, ANY6]),
    ("::1", [ONE, DUAL]),
]


@pytest.mark.fault(13, 19)
@pytest.mark.parametrize(("host", "rivals"), RIVALS)
def test_answering_names_the_socket_that_really_gets_the_connection(
    host: str, rivals: list[tuple[str, bool, str]]
) -> None:
    with ExitStack() as stack:
        servers = []
        port = 0
        for address, ipv6_only, interface in rivals:
            servers.append(
                stack.enter_context(
                    listening(address, port, ipv6_only=ipv6_only, interface=interface, shared=True)
                )
            )
            port = port_of(servers[0])
        named = listeners_at(host, port)
        stack.enter_context(socket.create_connection((host, port)))
        getting, _, _ = select.select(servers, [], [], 10)
        assert [inode_of(server) for server in getting] == [found.inode for found in named]


@pytest.mark.parametrize(("host", "rivals"), [("::1", [ANY, ONE]), ("127.0.0.1", [ANY6, ONE6])])
def test_nobody_answers_when_only_the_other_family_listens(
    host: str, rivals: list[tuple[str, bool, str]]
) -> None:
    found = [Listener(address, 1, 1, 0, 0, only) for address, only, _ in rivals]
    assert [] == answering(found, host)
    assert [] == answering([], host)


def test_all_who_share_a_port_on_purpose_answer() -> None:
    with listening(shared=True) as first, listening(port=port_of(first), shared=True) as second:
        named = listeners_at("127.0.0.1", port_of(first))
        assert {inode_of(first), inode_of(second)} == {found.inode for found in named}


# --- who holds it ---------------------------------------------------------------------------------


def test_process_holds_the_socket_that_it_opened_and_no_other() -> None:
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) as other, listening() as server:
        inode = inode_of(server)
        assert holds_socket(ME, inode)
        assert holds_socket(other.pid, inode) is False
        assert ME == holder_of(inode)
        other.kill()


def test_process_that_is_gone_holds_nothing(gone: int) -> None:
    assert holds_socket(gone, 1) is False


def test_descriptor_that_is_closed_meanwhile_is_not_the_socket(tmp_path: Path) -> None:
    assert not _proc._is_socket(str(tmp_path / "3"), 1)


def test_what_another_user_holds_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: str) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "scandir", refuse)
    assert holds_socket(ME, 1) is None
    assert holder_of(1) is None


# --- who calls ------------------------------------------------------------------------------------


@pytest.mark.fault(87)
@pytest.mark.parametrize(
    ("server_at", "client_to"),
    [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("::", "127.0.0.1"), ("::", "::ffff:127.0.0.1")],
)
def test_caller_on_this_machine_is_known_by_its_connection(
    way: str, server_at: str, client_to: str
) -> None:
    with (
        listening(server_at, ipv6_only=False) as server,
        socket.create_connection((client_to, port_of(server))) as client,
    ):
        accepted, peer = server.accept()
        with accepted:
            own = accepted.getsockname()
            assert (os.geteuid(), inode_of(client)) == connection_uid(peer[:2], own[:2])
            assert (os.geteuid(), inode_of(accepted)) == connection_uid(own[:2], peer[:2])


@pytest.mark.fault(87)
def test_connection_that_is_not_there_has_no_caller(way: str) -> None:
    with listening() as server:
        own = server.getsockname()
        # The kernel would offer the listening socket for the first, which is nobody's call.
        assert connection_uid(own, ("127.0.0.1", 1)) is None
        assert connection_uid(("127.0.0.1", 1), own) is None
        assert connection_uid(("192.0.2.1", 1), ("no address", 1)) is None


@pytest.mark.fault(87)
def test_connection_that_its_caller_has_closed_is_not_taken_for_roots(way: str) -> None:
    with listening() as server:
        client = socket.create_connection(server.getsockname())
        accepted, peer = server.accept()
        with accepted:
            client.close()
            assert b"" == accepted.recv(1)
            assert connection_uid(peer, server.getsockname()) is None
        assert connection_uid(peer, server.getsockname()) is None


def test_tables_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(_: str) -> bytes:
        raise FileNotFoundError

    monkeypatch.setattr(_proc, "read", read)
    assert [] == list(_proc._tcp_table())


# --- netlink --------------------------------------------------------------------------------------


class Kernel:
    """A kernel that gives prepared answers."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)

    def __call__(self, *_: int) -> "Kernel":
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def setblocking(self, flag: bool) -> None: ...

    def sendto(self, question: bytes, address: tuple[int, int]) -> None: ...

    def recv(self, size: int) -> bytes:
        return self.answers.pop(0)


def message(kind: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 2, 1, 0) + body


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (message(2, struct.pack("=i", -errno.EACCES)), errno.EACCES),
        (struct.pack("=IHHII", 3, 20, 2, 1, 0), errno.EBADMSG),
    ],
    ids=["refusal", "nonsense"],
)
def test_kernel_that_refuses_or_talks_nonsense_raises(
    monkeypatch: pytest.MonkeyPatch, answer: bytes, error: int
) -> None:
    monkeypatch.setattr(socket, "socket", Kernel(answer))
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is looked at below
        _sock_diag.listening_sockets(socket.AF_INET, 1)
    assert error == caught.value.errno


def test_attributes_are_searched_for_the_one_of_ipv6() -> None:
    def attribute(kind: int, value: bytes) -> bytes:
        return struct.pack("=HH", 4 + len(value), kind) + value.ljust((len(value) + 3) & ~3, b"\0")

    other, wanted = attribute(8, b"\1"), attribute(11, b"\1")
    assert _sock_diag._is_ipv6_only(other + wanted)
    assert not _sock_diag._is_ipv6_only(other)
    assert not _sock_diag._is_ipv6_only(bytes(12))


def test_other_systems_have_no_netlink(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(OSError, match="Linux's"):
        _sock_diag.listening_sockets(socket.AF_INET, 1)
