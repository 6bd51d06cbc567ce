"""Free ports that stay free."""

import errno
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from trio_lifecycle import _ports
from trio_lifecycle._ports import DEFAULT_EPHEMERAL, ReservedPort, choose_range, reserve_port

ROOT = Path(__file__).resolve().parents[1]

# Reserves ports, says their numbers, and holds them until its input ends.
HOLDER = """
import sys
from trio_lifecycle._ports import reserve_port
first, stop, count = map(int, sys.argv[1:])
outside = range(first, stop)
if first:
    import trio_lifecycle._ports as ports
    ports.choose_range = lambda _: outside
held = [reserve_port() for _ in range(count)]
print(*(port.number for port in held), flush=True)
sys.stdin.read()
"""

StartHolder = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start_holder() -> Iterator[StartHolder]:
    """Start a program that reserves so many ports, from a narrow choice if one is given."""
    with ExitStack() as stack:

        def start(count: int, choice: range = range(0)) -> subprocess.Popen[str]:
            arguments = [str(number) for number in (choice.start, choice.stop, count)]
            holder = subprocess.Popen(
                [sys.executable, "-c", HOLDER, *arguments],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(holder)
            stack.callback(holder.kill)
            return holder

        yield start


def numbers_of(holder: subprocess.Popen[str]) -> list[int]:
    """The ports that it holds, once it holds them all."""
    assert holder.stdout is not None
    return [int(number) for number in holder.stdout.readline().split()]


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let there be no other ports to choose from, tried from the first on."""

    def choose(*numbers: int) -> None:
        choice = range(numbers[0], numbers[-1] + 1)
        assert list(numbers) == list(choice)
        monkeypatch.setattr(_ports, "choose_range", lambda _: choice)
        monkeypatch.setattr(secrets, "randbelow", lambda _: 0)

    return choose


@pytest.fixture
def pair() -> tuple[int, int]:
    """Two neighbouring ports that nobody uses."""
    while True:
        with reserve_port() as first, closing(socket.socket()) as probe:
            try:
                probe.bind(("0.0.0.0", first.number + 1))
            except OSError:
                continue
        return first.number, first.number + 1


# --- what is given --------------------------------------------------------------------------------


@pytest.mark.fault(14)
def test_port_can_be_bound_at_once_while_it_is_reserved() -> None:
    with reserve_port() as port, socket.socket() as daemon:
        daemon.bind(("127.0.0.1", port.number))
        daemon.listen()
    assert port.number in range(10_000, DEFAULT_EPHEMERAL.start)


def test_port_for_an_ipv6_host_can_be_bound_there() -> None:
    with reserve_port("::1") as port, socket.socket(socket.AF_INET6) as daemon:
        daemon.bind(("::1", port.number))


def test_address_of_another_machine_fails_and_keeps_no_mark(
    only: Callable[..., None], pair: tuple[int, int]
) -> None:
    only(*pair)
    with pytest.raises(OSError, match="assign") as caught:
        reserve_port("192.0.2.1")
    assert errno.EADDRNOTAVAIL == caught.value.errno
    with reserve_port() as port:
        assert pair[0] == port.number


@pytest.mark.fault(14)
@pytest.mark.parametrize(
    ("family", "address"),
    [
        (socket.AF_INET, "127.0.0.1"),
        (socket.AF_INET, "127.0.0.2"),
        (socket.AF_INET, "0.0.0.0"),
        (socket.AF_INET6, "::1"),
        (socket.AF_INET6, "::"),
        (socket.AF_INET6, "::ffff:127.0.0.1"),
    ],
)
def test_port_that_somebody_listens_on_is_not_given(
    only: Callable[..., None],
    pair: tuple[int, int],
    family: socket.AddressFamily,
    address: str,
) -> None:
    only(*pair)
    with socket.socket(family) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if "." in address and family == socket.AF_INET6:
            other.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        other.bind((address, pair[0]))
        other.listen()
        with reserve_port() as port:
            assert pair[1] == port.number


def test_port_that_is_bound_without_listening_is_not_given(
    only: Callable[..., None], pair: tuple[int, int]
) -> None:
    only(*pair)
    with socket.socket() as other:
        other.bind(("127.0.0.1", pair[0]))
        with reserve_port() as port:
            assert pair[1] == port.number


def test_port_that_a_connection_is_still_ending_on_is_not_given(
    only: Callable[..., None], pair: tuple[int, int]
) -> None:
    only(*pair)
    with (
        socket.create_server(("127.0.0.1", pair[0])) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        accepted, _ = server.accept()
        accepted.close()  # the server's end closes first, and so gets TIME_WAIT
        assert b"" == client.recv(1)
    with reserve_port() as port:
        assert pair[1] == port.number


# --- how long it is kept --------------------------------------------------------------------------


@pytest.mark.fault(14)
def test_port_is_not_given_twice_until_it_is_released(
    only: Callable[..., None], pair: tuple[int, int]
) -> None:
    only(*pair)
    first, second = reserve_port(), reserve_port()
    assert pair == (first.number, second.number)
    with pytest.raises(OSError, match="is free") as caught:
        reserve_port()
    assert errno.EADDRINUSE == caught.value.errno
    first.release()
    first.release()
    with reserve_port() as again:
        assert pair[0] == again.number
    second.release()


def test_reserved_port_prints_its_number_and_can_not_be_changed() -> None:
    with reserve_port() as port:
        assert f"ReservedPort(number={port.number})" == repr(port)
        with pytest.raises(AttributeError):
            port.number = 1


@pytest.mark.fault(14)
def test_no_port_is_given_twice_when_four_programs_reserve_two_hundred_at_once(
    start_holder: StartHolder,
) -> None:
    # A choice hardly larger than what is wanted, so that they meet all the time.
    choice = range(20_000, 20_260)
    holders = [start_holder(50, choice) for _ in range(4)]
    numbers = [number for holder in holders for number in numbers_of(holder)]
    assert 200 == len(numbers)
    assert 200 == len(set(numbers))


@pytest.mark.fault(14)
def test_port_is_free_at_once_when_its_holder_is_killed(
    start_holder: StartHolder, only: Callable[..., None]
) -> None:
    holder = start_holder(1)
    (number,) = numbers_of(holder)
    only(number)
    with pytest.raises(OSError, match="is free"):
        reserve_port()
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with reserve_port() as port:
        assert number == port.number


def test_mark_is_not_inherited_by_a_program_that_is_started(
    only: Callable[..., None], pair: tuple[int, int]
) -> None:
    only(*pair)
    port = reserve_port()
    greeting = ["/bin/sh", "-c", "echo started; read -r word"]
    with subprocess.Popen(
        greeting, stdin=subprocess.PIPE, stdout=subprocess.PIPE, close_fds=False
    ) as daemon:
        # Not before it runs: exec releases its parent a moment before it closes descriptors.
        assert daemon.stdout is not None
        assert b"started\n" == daemon.stdout.readline()
        port.release()
        with reserve_port() as again:
            assert port.number == again.number
        daemon.kill()


# --- refusals of the system -----------------------------------------------------------------------


class SocketThatRefuses(socket.socket):
    """A socket that fails to bind in one family."""

    family_refused = socket.AF_INET6
    error = errno.EAFNOSUPPORT

    def bind(self, address: object) -> None:
        if self.family == self.family_refused:
            raise OSError(self.error, "refused")
        super().bind(address)  # type: ignore[arg-type]


def refuse(monkeypatch: pytest.MonkeyPatch, family: socket.AddressFamily, error: int) -> None:
    """Let every bind in a family fail so."""
    monkeypatch.setattr(SocketThatRefuses, "family_refused", family)
    monkeypatch.setattr(SocketThatRefuses, "error", error)
    monkeypatch.setattr(socket, "socket", SocketThatRefuses)


@pytest.mark.parametrize("error", [errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL])
def test_machine_without_ipv6_gets_a_port(monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    refuse(monkeypatch, socket.AF_INET6, error)
    with reserve_port() as port:
        assert isinstance(port, ReservedPort)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX])
def test_error_that_says_nothing_of_the_port_is_raised(
    monkeypatch: pytest.MonkeyPatch, family: socket.AddressFamily
) -> None:
    refuse(monkeypatch, family, errno.ENOMEM)
    with pytest.raises(OSError, match="refused") as caught:
        reserve_port()
    assert errno.ENOMEM == caught.value.errno


# --- the choice -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ephemeral", "expected"),
    [
        (range(32_768, 61_000), range(10_000, 32_768)),
        (range(10_500, 60_000), range(60_000, 65_536)),
        (range(1_024, 5_000), range(10_000, 65_536)),
        (range(1_024, 65_536), range(1_024, 65_536)),
        (range(1, 65_536), range(1_024, 65_536)),
        (range(10_999, 64_999), range(10_999, 64_999)),
        (range(0), range(10_000, 65_536)),
    ],
)
def test_choice_avoids_the_kernels_own_ports_when_it_leaves_enough(
    ephemeral: range, expected: range
) -> None:
    assert expected == choose_range(ephemeral)


def test_port_lies_in_the_choice_that_the_given_range_leaves() -> None:
    with reserve_port(ephemeral=range(10_000, 60_000)) as port:
        assert port.number >= 60_000
